"""RetLLM's tie-break, on lists made by hand and by chance."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshift.schema.states import DecidedBy
from nightshift.scoring.fusion import fuse, probability
from nightshift.scoring.log_odds import of_probability
from nightshift.scoring.tie_break import break_ties

margins = st.floats(-40, 40, width=32)
candidates = st.lists(st.tuples(margins, st.floats(0, 12, width=32)), min_size=1, max_size=12)


def log_odds(p: float) -> float:
    return math.log(p / (1 - p))


def order(placements: list) -> list[int]:
    return [i for i, _ in sorted(enumerate(placements), key=lambda pair: pair[1].final_rank)]


def test_among_equal_floored_scores_the_least_entropy_wins() -> None:
    results = break_ties(
        [log_odds(p) for p in (0.855, 0.851, 0.853, 0.30)], [0.9, 0.2, 0.5, 0.1], [1, 2, 3, 4]
    )

    assert order(results) == [1, 2, 0, 3]
    assert [p.decided_by for p in results] == [DecidedBy.ENTROPY] * 3 + [DecidedBy.SCORE]
    assert [(p.tie_group, p.tie_size) for p in results] == [(1, 3)] * 3 + [(2, 1)]
    assert [p.untied_rank for p in results] == [1, 3, 2, 4]


def test_when_every_score_floors_to_zero_the_most_confident_no_does_not_win() -> None:
    """The defect of the published rule: p(True) = 0.0005 beats 0.004 by its smaller entropy."""
    results = break_ties([log_odds(0.0005), log_odds(0.004)], [0.0065, 0.028], [1, 2])

    assert order(results) == [1, 0]
    assert [p.tie_size for p in results] == [2, 2]
    assert [p.decided_by for p in results] == [DecidedBy.SCORE] * 2


@pytest.mark.parametrize(("tied_at", "by"), [(0.505, "score"), (0.515, "entropy")])
def test_entropy_decides_only_above_one_half(tied_at: float, by: str) -> None:
    results = break_ties([log_odds(tied_at), log_odds(tied_at + 0.002)], [0.1, 0.7], [1, 2])

    assert [p.decided_by for p in results] == [by, by]
    assert order(results) == ([1, 0] if by == "score" else [0, 1])


def test_equal_entropy_falls_back_to_the_coarse_order() -> None:
    results = break_ties([3.0, 3.001, 2.999], [0.2, 0.2, 0.4], [2, 1, 3])

    assert order(results) == [1, 0, 2]
    assert [p.decided_by for p in results] == [
        DecidedBy.COARSE,
        DecidedBy.COARSE,
        DecidedBy.ENTROPY,
    ]


@pytest.mark.parametrize("hundredths", range(1, 100))
def test_the_quantum_counts_hundredths_without_the_float_quirk(hundredths: int) -> None:
    """`int(0.29 * 100)` is 28; here 0.29 and 0.2999 tie, and 0.2899 does not."""
    p = hundredths / 100
    results = break_ties(
        [log_odds(p), log_odds(p + 0.0099), log_odds(p - 0.0001)], [1] * 3, [1, 2, 3]
    )

    assert [placement.tie_size for placement in results] == [2, 2, 1]


@given(st.integers(1, 9999), st.integers(1, 9999))
def test_written_numbers_tie_by_their_hundredths_even_as_stored_log_odds(
    left: int, right: int
) -> None:
    margins = [np.float32(of_probability(units / 10_000)) for units in (left, right)]

    results = break_ties(margins, [0.1, 0.2], [1, 2])

    assert (results[0].tie_size == 2) == (left // 100 == right // 100)


def test_no_quantum_means_the_exact_score_alone() -> None:
    results = break_ties([2.0, 2.0001, 2.0], [0.1, 0.9, 0.05], [2, 3, 1], quantum=0)

    assert order(results) == [1, 2, 0]
    assert [p.decided_by for p in results] == [DecidedBy.COARSE, DecidedBy.SCORE, DecidedBy.COARSE]


def test_margins_that_the_logistic_rounds_to_one_are_still_ordered() -> None:
    results = break_ties([50.0, 60.0], [0.1, 0.1], [1, 2], quantum=0)

    assert order(results) == [1, 0]


def test_failed_pairs_keep_their_coarse_order_below_the_scored() -> None:
    results = break_ties([math.nan, -5.0, math.nan], [0, 1, 0], [3, 2, 1])

    assert order(results) == [1, 2, 0]
    assert results[0].probability is None
    assert results[0].tie_group is None
    assert results[2].decided_by == DecidedBy.COARSE


def test_a_fused_score_orders_in_place_of_the_probability() -> None:
    odds = [log_odds(0.9), log_odds(0.6)]
    fused = fuse([0.1, 0.8], probability(odds), weight=0.5)

    results = break_ties(odds, [0.1, 0.1], [2, 1], quantum=0, fused=fused)

    assert order(results) == [1, 0]
    assert results[0].probability == pytest.approx(0.9)


def test_no_candidates_give_no_placements() -> None:
    assert break_ties([], [], []) == []


@given(candidates, st.sampled_from([0.0, 0.01, 0.05]), st.randoms(use_true_random=False))
def test_permuting_the_candidates_permutes_the_result(rows: list, quantum: float, random) -> None:
    ranks = list(range(1, len(rows) + 1))
    shuffled = random.sample(range(len(rows)), len(rows))
    odds, entropies = (np.array(column) for column in zip(*rows, strict=True))

    complete = break_ties(odds, entropies, ranks, quantum=quantum)
    permuted = break_ties(
        odds[shuffled], entropies[shuffled], [ranks[i] for i in shuffled], quantum=quantum
    )

    assert permuted == [complete[i] for i in shuffled]


@given(candidates, st.sampled_from([0.0, 0.01, 0.05]))
def test_ranks_are_a_permutation_and_only_ties_move(rows: list, quantum: float) -> None:
    odds, entropies = (np.array(column) for column in zip(*rows, strict=True))
    k = len(rows)

    results = break_ties(odds, entropies, range(1, k + 1), quantum=quantum)

    assert sorted(p.final_rank for p in results) == list(range(1, k + 1))
    assert sorted(p.untied_rank for p in results) == list(range(1, k + 1))
    for i, result in enumerate(results):
        for j, other in enumerate(results):
            if result.tie_group != other.tie_group:
                assert (result.final_rank < other.final_rank) == (
                    result.tie_group < other.tie_group
                )
                assert (odds[i] > odds[j]) == (result.final_rank < other.final_rank)


@given(candidates)
def test_the_winner_is_the_published_rule_wherever_it_may_apply(rows: list) -> None:
    """Independent code of the rule: least entropy among the largest floored score."""
    p = [1 / (1 + math.exp(-m)) for m, _ in rows]
    floored = [math.floor(value * 100 + 1e-5) for value in p]
    best = max(floored)
    if best <= 50:
        return
    tied = [i for i, value in enumerate(floored) if value == best]
    winner = min(tied, key=lambda i: (rows[i][1], i))

    results = break_ties([m for m, _ in rows], [h for _, h in rows], range(1, len(rows) + 1))

    assert results[winner].final_rank == 1


def test_without_the_guard_the_least_entropy_wins_at_any_score_as_published() -> None:
    """The published rule prefers the surest "False" among candidates that all score 0.00."""
    margins, entropies = [log_odds(0.0005), log_odds(0.004)], [0.0065, 0.028]

    guarded = break_ties(margins, entropies, [1, 2])
    published = break_ties(margins, entropies, [1, 2], guard=False)

    assert [item.final_rank for item in guarded] == [2, 1]
    assert [item.final_rank for item in published] == [1, 2]
    assert [item.decided_by for item in published] == [DecidedBy.ENTROPY] * 2
    failed = break_ties(
        [*margins, float("nan")], [*entropies, float("nan")], [1, 2, 3], guard=False
    )
    assert [item.final_rank for item in failed] == [1, 2, 3]
