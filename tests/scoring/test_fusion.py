"""Probabilities and their fusion with the coarse score."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshift.scoring.fusion import fuse, probability


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
