"""Probabilities and their fusion with the coarse score."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshift.scoring.fusion import fuse, fused, probability
from nightshift.scoring.tie_break import break_ties


@given(st.floats(-700, 700))
def test_the_logistic_agrees_with_its_definition(margin: float) -> None:
    assert float(probability(margin)) == pytest.approx(
        math.exp(min(margin, 0)) / (math.exp(min(margin, 0)) + math.exp(min(-margin, 0))), rel=1e-12
    )


def test_the_logistic_neither_overflows_nor_hides_a_failed_pair() -> None:
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        assert probability([-1e30, 0.0, 1e30]).tolist() == [0.0, 0.5, 1.0]
    assert np.isnan(probability(math.nan))


def test_the_weight_ranges_from_the_fine_to_the_coarse_score() -> None:
    coarse, fine = [0.3, -0.1], [0.9, 0.2]

    assert fuse(coarse, fine, weight=0).tolist() == fine
    assert fuse(coarse, fine, weight=1).tolist() == coarse
    assert fuse(coarse, fine, weight=0.5) == pytest.approx([0.6, 0.05])


def test_retllm_does_not_look_at_the_coarse_score() -> None:
    assert fuse([math.nan], [0.7], weight=0).tolist() == [0.7]


@pytest.mark.parametrize("weight", [-0.1, 1.1, math.nan])
def test_a_weight_outside_of_its_range_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="weight"):
        fuse([0.0], [0.0], weight=weight)


def test_each_score_is_from_zero_to_one_among_those_that_have_both() -> None:
    coarse, margins = [0.31, 0.29, 0.30, 0.9], [2.0, -1.0, 0.5, np.nan]

    scores, exact = fused(coarse, margins, weight=0.25, scale="minmax")

    chances = probability(margins[:3])
    fine = (chances - chances.min()) / (chances.max() - chances.min())
    assert scores[:3] == pytest.approx(0.25 * np.array([1, 0, 0.5]) + 0.75 * fine)
    assert np.array_equal(scores, exact, equal_nan=True)
    assert np.isnan(scores[3])
    equal, _ = fused([0.5, 0.5], [1.0, 1.0], weight=0.5, scale="minmax")
    assert equal.tolist() == [0, 0]


def test_log_odds_of_both_tell_apart_what_probabilities_round_to_one() -> None:
    scores, exact = fused([0.2, 0.2, 1.0], [100.0, 101.0, -3.0], weight=0.5, scale="logit")

    assert scores[0] == scores[1] == 1.0
    assert exact[1] - exact[0] == pytest.approx(0.5)
    # A cosine c is worth ln((1 + c) / (1 - c)).
    assert exact[0] == pytest.approx(0.5 * np.log(1.2 / 0.8) + 50)
    assert np.isfinite(exact[2])
    placed = break_ties(
        [50.0, 51.0], [0, 0], [1, 2], quantum=0.0, fused=scores[:2], exact=exact[:2]
    )
    assert [place.final_rank for place in placed] == [2, 1]


def test_as_they_are_the_scores_are_the_published_ones() -> None:
    coarse, margins = [0.3, 0.1], [0.0, 3.0]
    scores, exact = fused(coarse, margins, weight=0.5)
    assert scores.tolist() == fuse(coarse, probability(margins), weight=0.5).tolist()
    assert scores is exact
