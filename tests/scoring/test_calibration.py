"""Calibration statistics: laws of merging, and figures against plain code."""

import json
from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshift.scoring.calibration import CalibrationStats, observe_query
from nightshift.scoring.fusion import probability
from nightshift.scoring.tie_break import break_ties

NAN = float("nan")
rows = st.lists(
    st.tuples(
        st.one_of(st.floats(-20, 20, width=32), st.just(NAN)),
        st.floats(0, 13),
        st.one_of(st.none(), st.integers(0, 27)),
        st.booleans(),
    ),
    max_size=8,
)


def stats_of(query: list, *, labelled: bool = True, plain_winner: int | None = None):
    odds = [row[0] for row in query]
    entropies = [row[1] for row in query]
    return observe_query(
        break_ties(odds, entropies, range(1, len(query) + 1)),
        entropies=entropies,
        fired_layers=[row[2] for row in query],
        relevant=[row[3] for row in query] if labelled else None,
        plain_winner=plain_winner,
    )


observed = st.builds(stats_of, rows, labelled=st.booleans())


@given(observed, observed, observed)
def test_merging_is_exactly_associative_and_commutative(a, b, c) -> None:
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a.merge(b) == b.merge(a)


@given(observed)
def test_nothing_merged_with_something_is_that(stats: CalibrationStats) -> None:
    assert CalibrationStats().merge(stats) == stats
    assert stats.merge(CalibrationStats()) == stats


@given(observed)
def test_json_there_and_back_is_the_same(stats: CalibrationStats) -> None:
    assert CalibrationStats.from_json(json.loads(json.dumps(stats.to_json()))) == stats


def test_a_score_without_an_entropy_is_in_no_histogram_of_entropies() -> None:
    stats = stats_of([(2.0, NAN, None, True), (1.0, 0.7, None, False)])

    assert (stats.n_scored, sum(stats.score_histogram)) == (2, 2)
    assert sum(stats.entropy_histogram) == 1


@given(st.lists(rows, max_size=5))
def test_every_candidate_is_counted_once_in_every_histogram(queries: list) -> None:
    stats = reduce(CalibrationStats.merge, map(stats_of, queries), CalibrationStats())
    n_failed = sum(row[0] != row[0] for query in queries for row in query)

    assert stats.n_queries == len(queries)
    assert stats.n_candidates == sum(map(len, queries)) == stats.n_scored + stats.n_failed
    assert stats.n_failed == n_failed
    assert sum(stats.score_histogram) == sum(stats.entropy_histogram) == stats.n_scored
    assert sum(stats.decided_by.values()) == stats.n_candidates
    assert stats.n_labelled == stats.n_scored


@given(st.lists(rows, min_size=1, max_size=5))
def test_error_and_brier_score_agree_with_plain_code(queries: list) -> None:
    stats = reduce(CalibrationStats.merge, map(stats_of, queries))
    pairs = [row for query in queries for row in query if row[0] == row[0]]
    if not pairs:
        assert stats.brier_score() is None
        assert stats.expected_calibration_error() is None
        return
    p = probability([row[0] for row in pairs])
    y = np.array([row[3] for row in pairs], float)
    bins = np.minimum((p * 20).astype(int), 19)
    gaps = [abs(p[bins == b].sum() - y[bins == b].sum()) for b in range(20)]

    assert stats.brier_score() == pytest.approx(np.mean((p - y) ** 2), abs=1e-8)
    assert stats.expected_calibration_error() == pytest.approx(sum(gaps) / len(pairs), abs=1e-8)


def test_a_query_made_by_hand_is_counted_as_it_is() -> None:
    query = [(2.3, 0.9, 6, True), (2.295, 0.1, None, False), (-3.0, 12.5, 6, False), (NAN, 0, 7, 1)]

    stats = stats_of(query, plain_winner=1)

    assert (stats.n_scored, stats.n_failed, stats.n_fired) == (3, 1, 2)
    assert stats.fired_by_layer == {6: 2}
    assert (stats.n_tied, stats.n_tie_groups) == (2, 1)
    assert stats.winners_changed_by_tie_break == 1
    assert (stats.n_compared, stats.winners_changed_by_enhancement) == (1, 1)
    assert stats.entropy_histogram[-1] == 1
    assert (stats.score_histogram[0], stats.score_histogram[18]) == (1, 2)
    assert stats.decided_by == {"coarse": 1, "entropy": 2, "score": 1}


def test_a_winner_that_only_the_tie_break_changed_is_not_the_enhancements() -> None:
    query = [(2.3, 0.9, 6, True), (2.295, 0.1, None, False)]

    stats = stats_of(query, plain_winner=0)

    assert stats.winners_changed_by_tie_break == 1
    assert (stats.n_compared, stats.winners_changed_by_enhancement) == (1, 0)


def test_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="version"):
        CalibrationStats.from_json({**CalibrationStats().to_json(), "version": 99})
