"""Milvus is killed in the middle of a search stage and comes back without all that it held."""

import json
from pathlib import Path

import pytest

from nightshift.stack import Stack
from nightshift.stores.index.milvus import VectorStore
from tests.nights.night import Night

pytestmark = pytest.mark.night

_RESULT = (
    "SELECT query, item, final_rank, decided_by, round(margin::numeric, 4) FROM v_ranking "
    "WHERE run_id = :run ORDER BY query, final_rank"
)

#: Says that it is about to search, and waits for leave.
_WAITS = """
import time
from pathlib import Path
from nightshift.stores.index.milvus import VectorStore
search = VectorStore.search
def searches_when_told(self, *arguments, **options):
    Path({asks!r}).touch()
    while not Path({may!r}).exists():
        time.sleep(0.05)
    return search(self, *arguments, **options)
VectorStore.search = searches_when_told
"""


def test_a_search_that_missed_what_a_restart_lost_is_made_again(
    stack: Stack, night: Night, scenes: Path, embedder: str, scorer: str, tmp_path: Path
):
    asks, may = tmp_path / "asks", tmp_path / "may"
    # A lease that outlasts the restart, so that the same worker goes on.
    night.settings = night.settings.model_copy(update={"lease_s": 60.0})
    night.odd_worker(_WAITS.format(asks=str(asks), may=str(may)))
    night.cli("catalog", "import", "scenes", str(scenes / "items.jsonl"), "--json")
    night.cli("index", "build", "scenes", "--embedder", embedder, "--wait", "--json")
    rerank = ("rerank", "scenes", "--queries", str(scenes / "queries-text.jsonl"), "--scorer",
              scorer, "--top-k", "8", "--json")  # fmt: skip
    run_id = json.loads(night.cli(*rerank).stdout)["run_id"]
    night.wait_until(lambda: "asks" if asks.exists() else None)
    ((collection,),) = night.rows('SELECT collection FROM "index"')

    stack.kill("milvus")
    stack.up(0, dispatcher=False)
    with VectorStore(stack.urls().milvus_uri, stack.urls().milvus_token) as vectors:
        vectors.load(collection)
        lost = next(vectors.keys(collection))[:40]
        vectors.delete(collection, lost)
        vectors.flush(collection)
        may.touch()
        assert night.wait_for_run(run_id) == "done"
        held = {key for page in vectors.keys(collection) for key in page}

    assert set(lost) <= held
    embedded = night.rows(
        "SELECT sum(n_units) FROM job WHERE run_id = :r AND stage = 'embed'", r=run_id
    )
    assert embedded == [(40,)]
    assert night.cli("verify", str(run_id)).returncode == 0
    printed = json.loads(night.cli("doctor", "--json").stdout)
    assert {
        result["level"] for result in printed if result["check"] in ("milvus", "model", "runs")
    } == {"ok"}
    disturbed = night.rows(_RESULT, run=run_id)
    # Or the second run would reuse the scores instead of computing them.
    night.rows("DELETE FROM score WHERE run_id = :r RETURNING 1", r=run_id)
    undisturbed = json.loads(night.cli(*rerank, "--wait").stdout)["run_id"]
    assert night.rows(_RESULT, run=undisturbed) == disturbed
    assert len(disturbed) == 12 * 8
