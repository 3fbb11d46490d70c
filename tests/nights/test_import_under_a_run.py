"""A run reads the revision that it was planned with, whatever is imported meanwhile and later."""

import json
from pathlib import Path

from nightshift.schema.identity import content_hashes, pair_key
from nightshift.schema.records import TextPart
from tests.nights.night import Night

_BEFORE = {"x": "a red circle", "y": "a blue square", "z": "a green triangle"}
#: x and y have exchanged their texts, and z is gone.
_AFTER = {"x": "a blue square", "y": "a red circle"}


def _write(path: Path, texts: dict[str, str], **more: int) -> str:
    rows = [{"id": name, "text": text, **more} for name, text in texts.items()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def _import(night: Night, path: Path, texts: dict[str, str], **more: int) -> int:
    source = _write(path, texts, **more)
    done = night.cli(
        "catalog", "import", "words", source, "--prune", "--max-gone", "100%", "--json"
    )
    return json.loads(done.stdout)["revision"]


def _build(night: Night, embedder: str) -> dict:
    done = night.cli("index", "build", "words", "--embedder", embedder, "--parts", "text",
                     "--wait", "--json")  # fmt: skip
    return json.loads(done.stdout)


def _rerank(night: Night, queries: str, scorer: str, *more: str) -> int:
    words = ("rerank", "words", "--queries", queries, "--scorer", scorer, "--top-k", "3",
             "--query-parts", "text", "--item-parts", "text", "--json", *more)  # fmt: skip
    return json.loads(night.cli(*words).stdout)["run_id"]


def test_what_is_imported_between_search_and_score_is_not_seen(
    night: Night, embedder: str, scorer: str, tmp_path: Path
):
    items = tmp_path / "items.jsonl"
    assert _import(night, items, _BEFORE) == 1
    searching = night.worker("--queues", "embed,search")
    _build(night, embedder)
    queries = _write(tmp_path / "queries.jsonl", {"q": "a red circle"})
    run_id = _rerank(night, queries, scorer)
    stage = "SELECT stage FROM run WHERE id = :run"
    night.wait_until(lambda: night.rows(stage, run=run_id) == [("score",)] and "it scores")

    assert _import(night, items, _AFTER) == 2
    night.worker()

    assert night.wait_for_run(run_id) == "done"
    searching.terminate()
    fingerprint = night.rows("SELECT scorer_fingerprint FROM run WHERE id = :r", r=run_id)[0][0]
    query = content_hashes((TextPart(text="a red circle"),)).both
    keys = {
        name: pair_key(fingerprint, query, content_hashes((TextPart(text=text),)).both)
        for name, text in _BEFORE.items()
    }
    scored = night.rows(
        "SELECT external_id, pair_key FROM candidate JOIN item ON item.id = item_id "
        "JOIN score ON score.id = score_id WHERE candidate.run_id = :run",
        run=run_id,
    )
    assert {name: bytes(key) for name, key in scored} == keys
    assert "complete" in night.cli("verify", str(run_id)).stdout

    shown = night.cli("results", str(run_id), "--query", "q").stdout
    for text in _BEFORE.values():
        assert text in shown
    page = tmp_path / "report.html"
    night.cli("report", str(run_id), "--output", str(page))
    assert all(text in page.read_text() for text in _BEFORE.values())

    _build(night, embedder)
    later = _rerank(night, queries, scorer, "--wait")
    listed = night.rows(
        "SELECT item, coarse_score FROM v_ranking WHERE run_id = :r ORDER BY coarse_rank", r=later
    )
    assert [item for item, _ in listed] == ["y", "x"]
    # Exchanged texts are the same pairs of contents: nothing is scored.
    assert night.rows("SELECT plan -> 'to_score' FROM run WHERE id = :r", r=later) == [(0,)]

    assert _import(night, items, _AFTER, price=2) == 3
    assert _build(night, embedder)["items"] == 0
    repriced = _rerank(night, queries, scorer, "--wait")
    assert night.rows("SELECT plan -> 'to_score' FROM run WHERE id = :r", r=repriced) == [(0,)]
    assert "complete" in night.cli("verify", str(run_id)).stdout


def _vectors(night: Night) -> int:
    return night.rows("SELECT count(*) FROM embedding")[0][0]


def test_an_index_behind_its_catalogue_is_named_and_built_by_the_run_that_asks_for_it(
    night: Night, embedder: str, scorer: str, tmp_path: Path
):
    items = tmp_path / "items.jsonl"
    _import(night, items, {"x": "a blue square", "y": "a red circle"})
    night.worker()
    _build(night, embedder)
    _import(night, items, {"x": "a red circle", "new": "a large green triangle"})
    queries = _write(tmp_path / "queries.jsonl", {"q": "a large green triangle"})

    words = ("rerank", "words", "--queries", queries, "--scorer", scorer, "--top-k", "3",
             "--query-parts", "text", "--item-parts", "text")  # fmt: skip
    preview = night.cli(*words, "--dry-run")
    behind = night.cli(*words, "--wait", "--json", check=False)
    behind_id = night.rows("SELECT max(id) FROM run")[0][0]

    assert "2 items of the newest revision are not in the index" in preview.stdout
    assert "2 items of the catalogue are not in the index" in behind.stderr
    receipt = json.loads(night.cli("verify", str(behind_id), "--json", check=False).stdout)
    assert receipt["not_indexed"] == 2
    assert "2 items of revision 2" in night.cli("run", "show", str(behind_id)).stdout

    built = json.loads(night.cli(*words, "--build-index", "--wait", "--json").stdout)
    listed = night.rows(
        "SELECT item FROM v_ranking WHERE run_id = :r ORDER BY coarse_rank", r=built["run_id"]
    )
    assert listed[0] == ("new",)
    assert len(listed) == 2
    assert (
        json.loads(night.cli("verify", str(built["run_id"]), "--json").stdout)["not_indexed"] == 0
    )

    assert _vectors(night) == 4
    _build(night, embedder)
    night.wait_until(lambda: _vectors(night) == 2 and "deleted")
    findings = night.cli("doctor", "--json", check=False).stdout
    assert "vectors of items that changed" not in findings
