"""One content has one score: whatever is equal stands together, in every run, in one order."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from sqlalchemy import text

from nightshift.models.checkpoints.describe import describe_embedder, describe_scorer
from nightshift.producers import advance as stages
from nightshift.producers import score_stage
from nightshift.producers.catalog_import import import_catalog
from nightshift.producers.plan_index import plan_index
from nightshift.producers.plan_rerank import plan_rerank
from nightshift.producers.query_import import import_queries
from nightshift.results.verify import verify
from nightshift.schema.params import RerankParams, ScorerParams
from nightshift.schema.states import RunState, Stage
from nightshift.scoring.methods.registry import METHODS
from nightshift.stores.files.blobs import BlobStore
from nightshift.stores.ledger import runs
from nightshift.workers.do_job import do_job
from nightshift.workers.session import WorkerSession, open_session

TEXTS = {
    "m": "a red circle", "a": "a red circle", "z": "a red circle", "k": "a blue square",
    "b": "a red square", "c": "a green ring", "y": "a blue square", "d": "two red circles",
}  # fmt: skip
QUERIES = {"q1": "a red circle", "q2": "a blue square", "q3": "a red circle"}


@pytest.fixture
def session(settings, database) -> Iterator[WorkerSession]:
    session = open_session(settings, stages=frozenset(Stage), device="cpu")
    yield session
    session.close()


class Nights:
    """Dispatcher and worker in turns, in this process."""

    def __init__(self, session, vectors, embedder, scorer, folder: Path) -> None:
        self.session, self.database, self.vectors = session, session.database, vectors
        self.embedder, self.scorer, self.folder = embedder, scorer, folder

    def index(self, catalog: str, rows: list[dict[str, str]], parts: str = "text") -> None:
        source = self.folder / f"{catalog}.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        import_catalog(self.database, catalog, str(source))
        planned = plan_index(
            self.database, self.vectors, catalog,
            embedder=describe_embedder(self.embedder), parts=parts,
        )  # fmt: skip
        self.finish(planned.run_id)

    def rerank(self, catalog: str, parts: str = "text", **params: object) -> int:
        source = self.folder / "queries.jsonl"
        source.write_text(
            "".join(json.dumps({"id": id_, "text": said}) + "\n" for id_, said in QUERIES.items())
        )
        queries = import_queries(self.database, str(source), blobs=BlobStore(self.folder / "blobs"))
        if "score" in params:
            params["framing"] = METHODS["retllm"].framing_for(params["score"]).name
        scored = RerankParams(
            top_k=8, query_parts="text", item_parts=parts, scorer=ScorerParams(**params)
        )
        planned = plan_rerank(
            self.database, catalog, index_name=None, query_set_id=queries.query_set_id,
            scorer=describe_scorer(self.scorer, scored.scorer), params=scored,
        )  # fmt: skip
        return self.finish(planned.run_id)

    def finish(self, run_id: int) -> int:
        for _ in range(30):
            with self.database.begin() as connection:
                run = runs.get_run(connection, run_id)
                waiting = connection.execute(
                    text("UPDATE job SET not_before = '-infinity' WHERE run_id = :run "
                         "AND state = 'queued' RETURNING id"),
                    {"run": run_id},
                )  # fmt: skip
                jobs = sorted(waiting.scalars())
            if run.state is not RunState.RUNNING:
                assert run.state is RunState.DONE
                return run_id
            for job in jobs:
                do_job(self.session, run_id, job)
            if not jobs:
                stages.advance(self.database, self.vectors, run_id, lambda _: None)
        raise AssertionError(f"run {run_id} does not end")

    def lists(self, run_id: int) -> dict[str, list[tuple[str, int, float | None]]]:
        """By query: item, place in the coarse search and margin, best first."""
        with self.database.begin() as connection:
            rows = connection.execute(
                text("SELECT query, item, coarse_rank, margin FROM v_ranking WHERE run_id = :run "
                     "ORDER BY query, final_rank"),
                {"run": run_id},
            ).all()  # fmt: skip
        results: dict[str, list[tuple[str, int, float | None]]] = {}
        for row in rows:
            results.setdefault(row.query, []).append((row.item, row.coarse_rank, row.margin))
        return results

    def orders(self, run_id: int) -> dict[str, list[tuple[str, int]]]:
        return {
            query: [(item, rank) for item, rank, _ in rows]
            for query, rows in self.lists(run_id).items()
        }

    def plan(self, run_id: int) -> dict[str, int]:
        with self.database.begin() as connection:
            return runs.get_run(connection, run_id).plan

    def scored_pairs(self, run_id: int) -> int:
        """Pairs that went through the model."""
        with self.database.begin() as connection:
            amount = connection.execute(
                text("SELECT amount FROM v_tally WHERE run_id = :run AND name = 'pairs'"),
                {"run": run_id},
            ).scalar()
        return int(amount or 0)

    def forget_scores(self) -> None:
        with self.database.begin() as connection:
            connection.execute(text("DELETE FROM score"))


@pytest.fixture
def nights(session, vector_store, embedder, scorer, tmp_path) -> Nights:
    return Nights(session, vector_store, embedder, scorer, tmp_path)


def _rows(order: int = 1) -> list[dict[str, str]]:
    return [{"id": id_, "text": said} for id_, said in list(TEXTS.items())[::order]]


def _together(items: list[str], *equal: str) -> bool:
    places = [items.index(item_id) for item_id in equal]
    return places == list(range(places[0], places[0] + len(equal)))


def test_equal_contents_have_one_score_and_one_order_in_every_run(nights, monkeypatch):
    nights.index("first", _rows())
    first = nights.rerank("first")
    lists = nights.lists(first)

    for rows in lists.values():
        for equal in (("a", "m", "z"), ("k", "y")):
            of_content = [row for row in rows if row[0] in equal]
            assert len({margin for _, _, margin in of_content}) == 1
            present = [item for item, _, _ in of_content]
            assert present == sorted(present)
            assert _together([row[0] for row in rows], *present)
            by_coarse = [row[0] for row in sorted(rows, key=lambda row: row[1])]
            assert _together(by_coarse, *present)
    assert lists["q1"] == lists["q3"]
    plan = nights.plan(first)
    # Two distinct queries, and of each list as many as have distinct contents.
    assert nights.scored_pairs(first) == plan.to_score == len(_distinct(lists))
    assert plan.pairs == 24 == plan.reused + plan.equal + plan.to_score
    assert verify(nights.database, first).complete

    repeated = nights.rerank("first")
    assert nights.plan(repeated).reused == 24
    assert nights.scored_pairs(repeated) == 0
    assert nights.lists(repeated) == lists

    # Other jobs, in which other pairs share a batch; and a catalogue that was read backwards.
    nights.index("second", _rows(-1))
    for catalog, size in (("first", 1), ("first", 3), ("second", 4)):
        nights.forget_scores()
        for module in (stages, score_stage):
            monkeypatch.setattr(module, "job_size", lambda *_, size=size: size)
        other = nights.rerank(catalog)
        assert nights.orders(other) == nights.orders(first)
        assert nights.scored_pairs(other) == plan.to_score


def _distinct(lists) -> set[tuple[str, str]]:
    return {(QUERIES[query], TEXTS[item]) for query, rows in lists.items() for item, _, _ in rows}


def test_a_list_shows_a_content_once(nights):
    nights.index("first", _rows())
    first = nights.rerank("first", score="listwise")
    lists = nights.lists(first)

    assert nights.scored_pairs(first) == len(_distinct(lists))
    for rows in lists.values():
        assert len({margin for item, _, margin in rows if item in {"a", "m", "z"}}) == 1
    repeated = nights.rerank("first", score="listwise")
    assert nights.plan(repeated).reused == 24
    assert nights.lists(repeated) == lists


def test_ties_of_written_numbers_are_asked_about_once_for_equal_pairs(nights):
    nights.index("first", _rows())
    first = nights.rerank("first", score="number")

    with nights.database.begin() as connection:
        reported = connection.execute(
            text("SELECT count(DISTINCT (margin, entropy)) FROM v_pair_score GROUP BY pair_key")
        ).scalars()
        assert set(reported) == {1}
    assert verify(nights.database, first).complete


def test_where_one_of_two_equal_images_cannot_be_read_the_other_has_its_score(nights, tmp_path):
    image = Image.new("RGB", (40, 40), "red")
    for name in ("a", "b", "c"):
        (Image.new("RGB", (40, 40), "blue") if name == "c" else image).save(
            tmp_path / f"{name}.png"
        )
    nights.index("images", [{"id": n, "image": f"{n}.png"} for n in "abc"], parts="image")
    (tmp_path / "a.png").unlink()

    run_id = nights.rerank("images", parts="image")

    for rows in nights.lists(run_id).values():
        margins = {item: margin for item, _, margin in rows}
        assert margins["a"] == margins["b"] is not None
    receipt = verify(nights.database, run_id)
    pairs = next(tally for tally in receipt.balances if tally.unit == "pairs")
    assert receipt.complete
    assert (pairs.expected, pairs.done, pairs.failed) == (9, 9, 0)
    with nights.database.begin() as connection:
        noted = connection.execute(text("SELECT subject_id, fatal FROM failure")).all()
    assert [tuple(note) for note in noted] == [("q1 → a", False), ("q2 → a", False)]


def test_pairs_of_a_content_that_nobody_can_read_all_say_why(nights, tmp_path):
    for name in ("a", "b", "c", "d", "e"):
        Image.new("RGB", (40, 40), "red").save(tmp_path / f"{name}.png")
    nights.index("images", [{"id": n, "image": f"{n}.png"} for n in "abcde"], parts="image")
    for name in "abcde":
        (tmp_path / f"{name}.png").unlink()

    run_id = nights.rerank("images", parts="image")

    receipt = verify(nights.database, run_id)
    pairs = next(tally for tally in receipt.balances if tally.unit == "pairs")
    assert receipt.complete
    assert (pairs.expected, pairs.done, pairs.failed) == (15, 0, 15)
