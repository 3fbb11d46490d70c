"""The main job on real parts: the command line, a dispatcher, Celery workers, three databases."""

import itertools
import json
from pathlib import Path

import pytest

from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.ledger import receipts, runs
from nightshift.stores.postgres.database import Database
from tests.nights.night import Night


def _run_id(done) -> int:
    return json.loads(done.stdout)["run_id"]


def _rerank(night: Night, scenes: Path, scorer: str, *more: str, queries="queries-text.jsonl"):
    arguments = ("rerank", "scenes", "--queries", str(scenes / queries), "--scorer", scorer)
    return _run_id(night.cli(*arguments, "--top-k", "5", "--json", *more))


def _models_of_workers(night: Night) -> list[tuple[str, str]]:
    listed = json.loads(night.cli("worker", "list", "--json").stdout)
    return [(row["model"], row["model_fingerprint"]) for row in listed if row["state"] == "alive"]


def _items(scenes: Path, n_items: int) -> list[dict[str, str]]:
    lines = (scenes / "items.jsonl").read_text().splitlines()[:n_items]
    return [{**row, "image": str(scenes / row["image"])} for row in map(json.loads, lines)]


def _write(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


_RANKING = (
    "SELECT query, replace(item, 'bare-', ''), final_rank, coarse_score, margin "
    "FROM v_ranking WHERE run_id = :run ORDER BY query, final_rank"
)


def test_a_catalogue_is_imported_indexed_and_reranked(indexed_night, scenes, scorer):
    night = indexed_night

    run_id = _rerank(night, scenes, scorer, "--wait")

    rankings = night.rows(
        "SELECT query, count(*), min(final_rank), max(final_rank), count(DISTINCT coarse_rank), "
        "bool_and(margin IS NOT NULL AND probability BETWEEN 0 AND 1 AND entropy >= 0 AND "
        "fired IS NOT NULL AND tie_size >= 1 AND decided_by IN ('score', 'entropy', 'coarse')) "
        "FROM v_ranking WHERE run_id = :run GROUP BY query",
        run=run_id,
    )
    assert len(rankings) == 12
    assert {row[1:] for row in rankings} == {(5, 1, 5, 5, True)}
    assert night.rows("SELECT count(*) FROM failure WHERE run_id = :r", r=run_id) == [(0,)]
    jobs = night.rows("SELECT DISTINCT state, attempt FROM job WHERE run_id = :r", r=run_id)
    assert jobs == [("done", 1)]
    assert night.cli("verify", str(run_id)).returncode == 0
    details = json.loads(night.cli("run", "show", str(run_id), "--json").stdout)
    ((images,),) = night.rows(
        "SELECT count(DISTINCT item_id) FROM candidate WHERE run_id = :r", r=run_id
    )
    # An image of several jobs, or whose pairs were compared, is seen and read more than once.
    assert details["pictures_seen"] >= images
    assert 0.5 < details["pairs_per_prefix"] <= details["pairs_per_group"]
    loaded = (details["scorer"]["spec"], details["scorer"]["fingerprint"])
    assert loaded[0].startswith(scorer)
    night.wait_until(lambda: _models_of_workers(night) == [loaded] and "reported")


def test_each_missing_result_of_a_done_run_is_a_loss(indexed_night, scenes, scorer):
    night = indexed_night
    run_id = _rerank(night, scenes, scorer, "--wait", "--max-pixels", "8000")  # nothing to reuse

    def lost() -> int:
        url = night.settings.database_url.get_secret_value()
        with Database(url) as database, database.begin() as connection:
            return receipts.count_lost(connection, runs.get_run(connection, run_id))

    results = [lost()]
    night.rows(
        "DELETE FROM ranking WHERE run_id = :r AND (query_id, item_id) = (SELECT query_id, "
        "item_id FROM ranking WHERE run_id = :r ORDER BY 1, 2 LIMIT 1) RETURNING 1",
        r=run_id,
    )
    results.append(lost())
    night.rows(
        "DELETE FROM score WHERE id = (SELECT score_id FROM candidate WHERE run_id = :r "
        "ORDER BY query_id, item_id LIMIT 1) RETURNING 1",
        r=run_id,
    )
    results.append(lost())
    night.rows(
        "DELETE FROM candidate WHERE run_id = :r AND query_id = "
        "(SELECT max(query_id) FROM candidate WHERE run_id = :r) RETURNING 1",
        r=run_id,
    )
    results.append(lost())

    assert results == [0, 1, 2, 3]


def test_models_never_see_a_caption_that_came_with_an_image(
    indexed_night, scenes, embedder, scorer, tmp_path
):
    night = indexed_night
    with_captions = _rerank(night, scenes, scorer, "--wait")
    bare = [
        {**row, "id": f"bare-{row['id']}", "text": "something else"} for row in _items(scenes, 96)
    ]
    night.cli("catalog", "import", "bare", _write(tmp_path / "bare.jsonl", bare), "--json")
    night.cli("index", "build", "bare", "--embedder", embedder, "--wait", "--json")
    # Or the second run would reuse the scores of the first: to the models the items are the same.
    night.rows("DELETE FROM score RETURNING 1")
    without = _run_id(
        night.cli("rerank", "bare", "--queries", str(scenes / "queries-text.jsonl"), "--scorer",
                  scorer, "--top-k", "5", "--wait", "--json")
    )  # fmt: skip

    assert night.rows(_RANKING, run=with_captions) == night.rows(_RANKING, run=without)


def test_the_second_night_scores_only_what_changed(indexed_night, scenes, scorer):
    night = indexed_night
    first = _rerank(night, scenes, scorer, "--wait", "--max-pixels", "10000")

    options = ("--max-pixels", "10000", "--top-k", "5", "--json")
    arguments = ("--queries", str(scenes / "queries-text.jsonl"), "--scorer", scorer, *options)
    estimate = json.loads(night.cli("rerank", "scenes", *arguments, "--dry-run").stdout)
    second = _run_id(night.cli("rerank", "scenes", *arguments, "--wait"))

    assert (estimate["pairs"], estimate["reused"]) == (60, 60)
    # Of its pairs each may have an image of its own, and images are what is shared.
    assert (estimate["items"], estimate["queries"], estimate["groups"]) == (96, 12, 60)
    assert estimate["seconds"] > 0, "nothing is scored; the searches were measured"
    scored = night.rows("SELECT count(*) FROM job WHERE run_id = :r AND stage = 'score'", r=second)
    assert scored == [(0,)]
    assert night.rows(_RANKING, run=first) == night.rows(_RANKING, run=second)


def test_nothing_is_embedded_twice(indexed_night, embedder):
    done = indexed_night.cli("index", "build", "scenes", "--embedder", embedder, "--wait", "--json")

    repeated = json.loads(done.stdout)
    assert (repeated["version"], repeated["items"], repeated["state"]) == (1, 0, "done")
    listed = json.loads(indexed_night.cli("index", "list", "--json").stdout)
    (scenes,) = [row for row in listed if row["catalog"] == "scenes"]
    assert (scenes["version"], scenes["state"], scenes["items"]) == (1, "ready", 96)
    assert 5 / scenes["dim"] < scenes["top_share"] < 1


def test_vectors_that_milvus_lost_are_embedded_again_before_a_search(indexed_night, scenes, scorer):
    night = indexed_night
    ((collection,),) = night.rows(
        'SELECT collection FROM "index" JOIN catalog ON catalog.id = catalog_id '
        "WHERE catalog.name = 'scenes'"
    )
    with VectorStore(
        night.settings.milvus_uri, night.settings.milvus_token.get_secret_value()
    ) as vectors:
        lost = next(vectors.keys(collection))[:20]
        vectors.delete(collection, lost)
        vectors.flush(collection)

        run_id = _rerank(night, scenes, scorer, "--wait")

        held = {key for page in vectors.keys(collection) for key in page}
    assert set(lost) <= held
    embedded = night.rows(
        "SELECT sum(n_units) FROM job WHERE run_id = :r AND stage = 'embed'", r=run_id
    )
    assert embedded == [(20,)]
    assert night.cli("verify", str(run_id)).returncode == 0


def test_an_image_that_vanished_is_one_failure_and_its_neighbours_go_on(
    busy_night, embedder, scenes, tmp_path
):
    night = busy_night
    rows = _items(scenes, 8)
    vanished = tmp_path / "vanished.png"
    vanished.write_bytes(Path(rows[0]["image"]).read_bytes())
    rows[0]["image"] = str(vanished)
    night.cli("catalog", "import", "few", _write(tmp_path / "few.jsonl", rows), "--json")
    vanished.unlink()

    run_id = _run_id(night.cli("index", "build", "few", "--embedder", embedder, "--json"))

    assert night.wait_for_run(run_id) == "done"
    assert night.rows("SELECT subject_id, reason FROM failure WHERE run_id = :r", r=run_id) == [
        (rows[0]["id"], "image_missing")
    ]
    assert night.rows("SELECT count(*) FROM embedding WHERE run_id = :r", r=run_id) == [(7,)]


def test_every_combination_of_query_and_candidate_parts_is_ranked(
    busy_night, scenes, embedder, scorer, tmp_path
):
    night = busy_night
    rows = _items(scenes, 4)
    night.cli("catalog", "import", "four", _write(tmp_path / "four.jsonl", rows), "--json")
    night.cli("index", "build", "four", "--embedder", embedder, "--parts", "text,image", "--wait",
              "--json")  # fmt: skip
    queries = [{**row, "id": f"q-{row['id']}"} for row in rows[:2]]
    file = _write(tmp_path / "queries.jsonl", queries)
    kinds = ("text", "image", "text,image")

    runs = {}
    for of_query, of_item in itertools.product(kinds, kinds):
        done = night.cli("rerank", "four", "--queries", file, "--scorer", scorer, "--top-k", "2",
                         "--query-parts", of_query, "--item-parts", of_item, "--json")  # fmt: skip
        runs[of_query, of_item] = _run_id(done)

    for run_id in runs.values():
        assert night.wait_for_run(run_id) == "done"
    margins = {
        combination: night.rows(
            "SELECT margin FROM v_ranking WHERE run_id = :r ORDER BY query, item", r=run_id
        )
        for combination, run_id in runs.items()
    }
    assert {len(rows) for rows in margins.values()} == {4}
    assert all(margin is not None for rows in margins.values() for (margin,) in rows)
    assert len(set(map(tuple, margins.values()))) == 9, "each combination asks in its own way"


@pytest.mark.parametrize(
    ("queries", "item_parts", "side"),
    [("queries-text.jsonl", "image", "candidate"), ("queries-image.jsonl", "text", "query")],
)
def test_pairs_are_grouped_by_the_side_that_the_framing_shares(
    indexed_night, scenes, scorer, queries, item_parts, side
):
    arguments = ("--item-parts", item_parts, "--max-pixels", "9000", "--wait")

    run_id = _rerank(indexed_night, scenes, scorer, *arguments, queries=queries)

    shared = indexed_night.rows(
        "SELECT DISTINCT payload ->> 'shared_side' FROM job WHERE run_id = :r AND stage = 'score'",
        r=run_id,
    )
    assert shared == [(side,)]
