"""FreeRet on real parts: one model embeds, re-ranks and answers."""

import json
from pathlib import Path

import pytest

from tests.nights.night import Night

pytestmark = pytest.mark.night


@pytest.fixture(scope="module")
def freeret_night(busy_night: Night, scenes: Path, scorer: str) -> Night:
    """A night whose catalogue of a few images is indexed by the scorer's own model."""
    night = busy_night
    rows = map(json.loads, (scenes / "items.jsonl").read_text().splitlines()[:24])
    items = [{**row, "image": str(scenes / row["image"])} for row in rows]
    few = night.settings.data_dir / "few.jsonl"
    few.write_text("".join(json.dumps(row) + "\n" for row in items))
    night.cli("catalog", "import", "few", str(few), "--json")
    embedder = scorer.replace("hf:", "freeret:") + "?task=caption@float32"
    done = night.cli("index", "build", "few", "--embedder", embedder, "--wait", "--json")
    assert json.loads(done.stdout)["state"] == "done"
    return night


@pytest.fixture(scope="module")
def run_id(freeret_night: Night, scenes: Path, scorer: str) -> int:
    """Texts re-ranked over images by the neutral choice, asked both ways round."""
    done = freeret_night.cli(
        "rerank", "few", "--queries", str(scenes / "queries-text.jsonl"), "--scorer",
        f"{scorer}@float32", "--method", "freeret", "--debias", "swap", "--top-k", "6", "--wait",
        "--json",
    )  # fmt: skip
    printed = json.loads(done.stdout)
    assert printed["state"] == "done"
    return int(printed["run_id"])


def test_a_model_embeds_and_reranks_by_itself(freeret_night: Night, run_id: int) -> None:
    (run,) = freeret_night.rows(
        "SELECT method, params->'scorer'->>'framing', params->>'quantum', plan->>'groups', "
        "params->'scorer'->'enhancement'->>'trigger' FROM run WHERE id = :run",
        run=run_id,
    )
    # The query comes first in the prompt, so each query's candidates are one group.
    assert run == ("freeret", "freeret", "0.0", "12", "never")
    ranked = freeret_night.rows(
        "SELECT query_id, count(*), bool_and(margin IS NOT NULL AND tie_size = 1), "
        "array_agg(margin ORDER BY final_rank) FROM ranking WHERE run_id = :run GROUP BY query_id",
        run=run_id,
    )
    assert [(n, scored) for _, n, scored, _ in ranked] == [(6, True)] * 12
    assert all(margins == sorted(margins, reverse=True) for *_, margins in ranked)


def test_the_default_depth_is_the_method_s(freeret_night: Night, scenes: Path, scorer: str) -> None:
    done = freeret_night.cli(
        "rerank", "few", "--queries", str(scenes / "queries-text.jsonl"), "--scorer", scorer,
        "--method", "freeret", "--dry-run", "--json",
    )  # fmt: skip

    estimate = json.loads(done.stdout)
    assert (estimate["pairs"], estimate["groups"]) == (12 * 24, 12)


def test_one_query_is_answered_then_all_and_answers_name_the_items_they_cite(
    freeret_night: Night, run_id: int
) -> None:
    night = freeret_night
    first = night.rows(
        "SELECT external_id FROM query JOIN ranking ON query.id = query_id WHERE run_id = :r "
        "ORDER BY query.id LIMIT 1",
        r=run_id,
    )[0][0]
    best = night.rows(
        "SELECT item, final_rank FROM v_ranking WHERE run_id = :r AND query = :q "
        "ORDER BY final_rank LIMIT 5",
        r=run_id,
        q=first,
    )

    (entry,) = json.loads(night.cli("answer", str(run_id), "--query", str(first), "--json").stdout)

    assert (entry["query"], entry["shown"]) == (first, [item for item, _ in best])
    assert set(entry["cited"]) <= set(entry["shown"])
    assert entry["n_tokens"] > 0
    every = json.loads(night.cli("answer", str(run_id), "--all", "--wait", "--json").stdout)
    assert (len(every), every[0]) == (12, entry), "an answer that is there is not made again"
    assert night.rows("SELECT state FROM run WHERE id = :r", r=run_id) == [("done",)]
    assert night.rows(
        "SELECT sum(n_units), sum(n_failed) FROM job WHERE run_id = :r AND stage = 'answer'",
        r=run_id,
    ) == [(12, 0)]
    assert "answer" in night.cli("run", "show", str(run_id)).stdout
    assert night.cli("verify", str(run_id)).returncode == 0


def test_only_a_ranked_query_of_a_rerank_run_is_answered(freeret_night: Night, run_id: int) -> None:
    nobody = freeret_night.cli("answer", str(run_id), "--query", "nobody", check=False)
    (index_run,) = freeret_night.rows("SELECT min(id) FROM run WHERE kind = 'index'")
    index = freeret_night.cli("answer", str(index_run[0]), "--all", check=False)

    assert (nobody.returncode, index.returncode) == (3, 4)
    assert "ranks nothing" in index.stderr
