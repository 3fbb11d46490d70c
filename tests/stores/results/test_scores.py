"""One row for each pair of contents under a scorer, whoever needs it and however often."""

from datetime import UTC, datetime
from threading import Barrier, Thread

import pytest
from sqlalchemy import text

from nightshift.schema.identity import pair_key
from nightshift.schema.params import RerankParams
from nightshift.schema.plans import RerankPlan
from nightshift.schema.states import Stage
from nightshift.stores.ledger import runs
from nightshift.stores.ledger.new_runs import create_rerank_run
from nightshift.stores.results import equal_pairs, model_loads, pairs
from nightshift.stores.results.scores import (
    PairScoreRow,
    forget_lost_scores,
    hold_scores,
    write_scores,
    write_tie_entropies,
)
from nightshift.stores.results.tied_pairs import tied_pairs
from nightshift.stores.results.writes import (
    CandidateRow,
    load_scored_candidates,
    write_candidates,
)
from tests.catalog_rows import ITEMS
from tests.results.ranked import SCORER, add_reference_run


@pytest.fixture
def reference(database):
    """A catalogue, an index, queries and a scorer."""
    return add_reference_run(database)


@pytest.fixture
def contents(database, reference):
    """Ids of the query q1 and of two items, with the key of each pair."""
    with database.begin() as connection:
        query_id, query = connection.execute(
            text("SELECT id, text_hash FROM query WHERE external_id = 'q1'")
        ).one()
        items = connection.execute(
            text(
                f"SELECT id, text_hash FROM {ITEMS} AS item WHERE external_id IN ('i1', 'i2') "
                "ORDER BY id"
            )
        ).all()
    keys = {row.id: pair_key(SCORER, bytes(query), bytes(row.text_hash)) for row in items}
    return query_id, keys


def planned(connection, *, month=None):
    """Another run of the same queries under the same scorer."""
    run_id = create_rerank_run(
        connection, stage=Stage.SEARCH, catalog_id=1, revision=1, index_id=1, query_set_id=1,
        scorer="hf:test", scorer_fingerprint=SCORER,
        params=RerankParams(query_parts="text", item_parts="text"), plan=RerankPlan(),
    )  # fmt: skip
    if month is not None:
        connection.execute(
            text("UPDATE run SET created_at = :at WHERE id = :run"),
            {"at": datetime(2031, month, 1, tzinfo=UTC), "run": run_id},
        )
        connection.execute(
            text("SELECT make_score_partition(number, :month) FROM model WHERE kind = 'scorer'"),
            {"month": datetime(2031, month, 1, tzinfo=UTC).date()},
        )
    return runs.get_run(connection, run_id)


def search(connection, run, contents):
    query_id, keys = contents
    write_candidates(
        connection,
        run,
        [
            CandidateRow(
                query_id=query_id,
                item_id=item_id,
                content_id=content_of(connection, item_id),
                coarse_rank=rank,
                coarse_score=0.5,
            )
            for rank, item_id in enumerate(keys, 1)
        ],
    )


def content_of(connection, item_id):
    return connection.execute(
        text(f"SELECT content_id FROM {ITEMS} AS item WHERE id = :item"), {"item": item_id}
    ).scalar_one()


def read_off(contents, margin=1.0, **values):
    query_id, keys = contents
    logits = {"logit_positive": 1.0, "logit_negative": 0.0, "logsumexp": 2.0, "entropy": 0.1}
    return [
        PairScoreRow(
            query_id=query_id, item_id=item_id, pair_key=key, margin=margin, fired=False,
            fired_layer=None, uncertainty=None, plain_margin=None, **{**logits, **values},
        )
        for item_id, key in keys.items()
    ]  # fmt: skip


def stored(connection):
    return connection.execute(text("SELECT count(*) FROM score")).scalar_one()


def scored(connection, run, contents):
    query_id, _ = contents
    return load_scored_candidates(connection, run, [query_id])[query_id]


def test_a_search_gives_candidates_the_scores_of_all_earlier_runs_however_many(database, contents):
    with database.begin() as connection:
        first = planned(connection)
        search(connection, first, contents)
        write_scores(connection, first, read_off(contents))
        for _ in range(40):
            run = planned(connection)
        search(connection, run, contents)

        assert stored(connection) == 2
        assert [(c.margin, c.reused) for c in scored(connection, first, contents)] == [
            (1.0, False), (1.0, False),
        ]  # fmt: skip
        assert [(c.margin, c.reused) for c in scored(connection, run, contents)] == [
            (1.0, True), (1.0, True),
        ]  # fmt: skip
        assert pairs.count_pairs(connection, run).reused == 2
        assert list(groups_to_score(connection, run)) == []


def groups_to_score(connection, run):
    shown = {"query_parts": "text", "item_parts": "text"}
    kinds = pairs.kind_pairs(connection, run.id, **shown)
    return pairs.groups(connection, run.id, **shown, combinations=kinds, shared_side="query")


def test_a_run_of_another_month_finds_the_score_and_adds_its_own_to_its_month(database, contents):
    with database.begin() as connection:
        september, october = planned(connection, month=9), planned(connection, month=10)
        search(connection, september, contents)
        search(connection, october, contents)
        write_scores(connection, september, read_off(contents)[:1])
        # The first pair again, as of a job that was planned before, and the second.
        write_scores(connection, october, read_off(contents, margin=2.0))

        months = connection.execute(text("SELECT month::text FROM score ORDER BY id")).scalars()
        assert list(months) == ["2031-09-01", "2031-10-01"]
        assert [c.margin for c in scored(connection, october, contents)] == [1.0, 2.0]
        equal_pairs.link_scores(connection, september, query_parts="text", item_parts="text")
        assert [c.margin for c in scored(connection, september, contents)] == [1.0, 2.0]


def test_two_runs_that_score_the_same_pairs_at_once_keep_one_row_of_each(database, contents):
    with database.begin() as connection:
        both = [planned(connection) for _ in range(2)]
        for run in both:
            search(connection, run, contents)
    barrier = Barrier(2)

    def commit(run, rows):
        with database.begin() as connection:
            hold_scores(connection)
            barrier.wait()
            write_scores(connection, run, rows)

    rows = read_off(contents)
    threads = [
        Thread(target=commit, args=(run, order))
        for run, order in zip(both, (rows, rows[::-1]), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with database.begin() as connection:
        assert stored(connection) == 2
        of_runs = [
            connection.execute(
                text("SELECT score_id FROM candidate WHERE run_id = :run ORDER BY item_id"),
                {"run": run.id},
            ).scalars().all()
            for run in both
        ]  # fmt: skip
        assert of_runs[0] == of_runs[1]
        assert None not in of_runs[0]


def test_a_dropped_load_takes_its_scores_out_of_all_runs_and_their_rankings(database, contents):
    with database.begin() as connection:
        load_id = model_loads.record_load(
            connection, worker_id="w", spec="hf:test", fingerprint=SCORER, files=[]
        )
        first, second = planned(connection), planned(connection)
        search(connection, first, contents)
        write_scores(connection, first, read_off(contents)[:1], load_id)
        write_scores(connection, first, read_off(contents)[1:])
        search(connection, second, contents)
        for run in (first, second):
            connection.execute(
                text(
                    "INSERT INTO ranking (run_id, query_id, final_rank, item_id, coarse_rank, "
                    "coarse_score, decided_by, scorer_fingerprint) "
                    "SELECT run_id, query_id, coarse_rank, item_id, coarse_rank, 0.5, 'coarse', "
                    "'s' FROM candidate WHERE run_id = :run"
                ),
                {"run": run.id},
            )

        dropped = model_loads.drop_load(connection, load_id)

        assert dropped.scores == 1
        assert stored(connection) == 1
        for run in (first, second):
            assert [c.margin for c in scored(connection, run, contents)] == [None, 1.0]
            assert [len(items) for _, items in groups_to_score(connection, run)] == [1]
            ranked = connection.execute(
                text("SELECT count(*) FROM ranking WHERE run_id = :run"), {"run": run.id}
            )
            assert ranked.scalar_one() == 0


def test_scores_are_not_dropped_while_candidates_take_their_ids(database, contents):
    with database.begin() as connection:
        load_id = model_loads.record_load(
            connection, worker_id="w", spec="hf:test", fingerprint=SCORER, files=[]
        )
        first, second = planned(connection), planned(connection)
        search(connection, first, contents)
        write_scores(connection, first, read_off(contents), load_id)

    def drop():
        with database.begin() as connection:
            model_loads.drop_load(connection, load_id)

    thread = Thread(target=drop)
    with database.begin() as connection:
        search(connection, second, contents)
        thread.start()
        while not waits_for_scores(database):
            pass
        assert [c.margin for c in scored(connection, second, contents)] == [1.0, 1.0]
    thread.join()

    with database.begin() as connection:
        assert [c.margin for c in scored(connection, second, contents)] == [None, None]


def waits_for_scores(database):
    with database.begin() as connection:
        waiting = connection.execute(
            text("SELECT count(*) FROM pg_locks WHERE relation = 'score'::regclass AND NOT granted")
        )
        return waiting.scalar_one()


def test_the_entropy_of_a_tie_is_written_once_for_all_runs(database, contents):
    unread = dict.fromkeys(("logit_positive", "logit_negative", "logsumexp", "entropy"))
    with database.begin() as connection:
        first, second = planned(connection), planned(connection)
        search(connection, first, contents)
        write_scores(connection, first, read_off(contents, **unread, written="1"))
        search(connection, second, contents)
        rule = {"quantum": 0.01, "fusion": 0.0, "guard": True}
        assert [len(items) for _, items in tied_pairs(connection, second, **rule)] == [2]

        write_tie_entropies(connection, first, read_off(contents, entropy=0.25))
        write_tie_entropies(connection, second, read_off(contents, entropy=0.75))

        assert list(tied_pairs(connection, second, **rule)) == []
        assert [c.entropy for c in scored(connection, second, contents)] == [0.25, 0.25]


def test_a_run_that_is_taken_up_again_scores_what_the_store_has_lost(database, contents):
    with database.begin() as connection:
        run = planned(connection)
        search(connection, run, contents)
        write_scores(connection, run, read_off(contents))
        connection.execute(text("DELETE FROM score"))
        assert list(groups_to_score(connection, run)) == []

        forget_lost_scores(connection, run)

        ((_, items),) = groups_to_score(connection, run)
        assert items == list(contents[1])
