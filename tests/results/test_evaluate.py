"""A run is measured before and after fine scoring, and its calibration is merged."""

import pytest
from sqlalchemy import text

from nightshift.results.calibration import calibration
from nightshift.results.evaluate import evaluate
from nightshift.schema.errors import ConflictError, NotFoundError
from nightshift.schema.states import RunState, SubjectKind
from nightshift.stores.failures import record_failure
from nightshift.stores.ledger import runs
from tests.results.ranked import LISTS, add_reference_run
from tests.stores.ledger_helpers import add_index_run


def test_both_orders_are_measured_over_all_judged_queries(database):
    """By hand: q1 has its one item at 3 → 1, q2 its two at 2, 3 → 1, 3, q3 its one at 1 → 3, and
    q5 was judged but not ranked."""
    evaluation = evaluate(database, _ended(database, RunState.DONE))

    assert (evaluation.n_queries, evaluation.n_measured, evaluation.n_failed) == (4, 4, 1)
    assert evaluation.coarse["recall@1"] == pytest.approx((0 + 0 + 1 + 0) / 4)
    assert evaluation.fine["recall@1"] == pytest.approx((1 + 1 / 2 + 0 + 0) / 4)
    assert evaluation.coarse["recall@20"] == evaluation.fine["recall@20"] == pytest.approx(3 / 4)
    assert evaluation.coarse["mrr"] == pytest.approx((1 / 3 + 1 / 2 + 1 + 0) / 4)
    assert evaluation.fine["mrr"] == pytest.approx((1 + 1 + 1 / 3 + 0) / 4)
    assert evaluation.coarse["map"] == pytest.approx((1 / 3 + (1 / 2 + 2 / 3) / 2 + 1 + 0) / 4)
    assert evaluation.fine["map"] == pytest.approx((1 + (1 + 2 / 3) / 2 + 1 / 3 + 0) / 4)


def _ended(database, state):
    run_id = add_reference_run(database)
    with database.begin() as connection:
        runs.set_run_state(connection, run_id, state)
    return run_id


@pytest.mark.parametrize("state", [RunState.CANCELLED, RunState.FAILED, RunState.PAUSED])
def test_a_query_that_the_run_did_not_reach_is_not_measured(database, state):
    evaluation = evaluate(database, _ended(database, state))

    assert (evaluation.state, evaluation.n_queries, evaluation.n_measured, evaluation.n_failed) == (
        state,
        4,
        3,
        0,
    )
    assert evaluation.fine["recall@1"] == pytest.approx((1 + 1 / 2 + 0) / 3)


def test_a_query_that_failed_counts_as_zero_before_the_run_ends_too(database):
    run_id = add_reference_run(database)
    with database.begin() as connection:
        record_failure(
            connection, run_id=run_id, stage="search", subject_kind=SubjectKind.QUERY,
            subject_id="q5", reason="image_missing", message="put it back",
        )  # fmt: skip

    evaluation = evaluate(database, run_id)

    assert (evaluation.n_measured, evaluation.n_failed) == (4, 1)


def test_without_a_ranking_nothing_is_measured(database):
    run_id = _ended(database, RunState.CANCELLED)
    with database.begin() as connection:
        connection.execute(text("DELETE FROM ranking"))

    with pytest.raises(ConflictError, match="0 of 5 queries have a ranking; the run was cancelled"):
        evaluate(database, run_id)


def test_without_judgements_there_is_nothing_to_measure(database):
    run_id = add_reference_run(database)
    with database.begin() as connection:
        connection.execute(text("DELETE FROM qrel"))

    with pytest.raises(NotFoundError, match="no judgements"):
        evaluate(database, run_id)


def test_calibration_is_the_sum_of_the_jobs_whatever_their_order(database):
    run_id = add_reference_run(database)

    stats = calibration(database, run_id)

    n_candidates = sum(map(len, LISTS.values()))
    assert (stats.n_queries, stats.n_candidates, stats.n_failed) == (4, n_candidates, 1)
    assert sum(stats.score_histogram) == sum(stats.entropy_histogram) == n_candidates - 1
    assert stats.fired_by_layer == {5: 1, 7: 1}
    assert stats.decided_by == {"coarse": 1, "entropy": 2, "score": 8}
    assert stats.winners_changed_by_tie_break == 1


def test_analysts_see_the_merged_figures_in_the_view(database):
    run_id = add_reference_run(database)
    stats = calibration(database, run_id)

    with database.begin() as connection:
        rows = connection.execute(
            text("SELECT statistic, bin, value FROM v_calibration WHERE run_id = :run"),
            {"run": run_id},
        ).all()
    figures = {(row.statistic, row.bin): row.value for row in rows}

    assert figures["n_candidates", None] == stats.n_candidates
    assert figures["fired_by_layer", "7"] == 1
    assert [figures["score_histogram", str(place)] for place in range(20)] == list(
        stats.score_histogram
    )
    assert not any(statistic == "version" for statistic, _ in figures)


def test_an_index_run_is_not_measured(database):
    run_id = add_index_run(database)

    for read in (evaluate, calibration):
        with pytest.raises(ConflictError, match="builds an index"):
            read(database, run_id)
