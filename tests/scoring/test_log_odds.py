"""Answers of every kind as log-odds, and numbers that a model wrote."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshift.scoring.fusion import probability
from nightshift.scoring.log_odds import (
    MAX_LOG_ODDS,
    of_probability,
    over_list,
    over_vocabulary,
    parse_number,
)

logits = st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=9)


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("Answer: 0.85", 0.85),
        ("0.85", 0.85),
        ("Answer: .9", 0.9),
        ("", None),
        ("I cannot tell.", None),
        ("Answer:", None),
        ("answer:0.1234\n", 0.1234),
        ("Answer: 1", 1.0),
        ("Answer: 0.", 0.0),
        ("Answer: 0.85, as asked", 0.85),
        ("The relevance is high. Answer: 0.7500", 0.75),
        (" 0.5000. ", 0.5),
        ("2 dogs, 0.3", None),
        ("Answer: 85", None),
        ("Answer: 85%", None),
        ("Answer: -0.5", None),
        ("-0.5", None),
        ("Answer: 1e-3", None),
        ("Answer: 0,85", None),
    ],
)
def test_a_written_number_is_read_or_there_is_none(written: str, number: float | None) -> None:
    assert parse_number(written) == number


@given(st.integers(0, 10_000))
def test_a_number_of_four_decimals_survives_as_log_odds(units: int) -> None:
    number = parse_number(f"Answer: {units / 10_000:.4f}")

    assert number == units / 10_000
    assert probability(of_probability(number)) == pytest.approx(number, abs=1e-7)


@given(logits)
def test_one_word_against_all_others_is_the_full_softmax(values: list[float]) -> None:
    scores = np.array(values)
    p = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    logsumexp = scores.max() + math.log(np.exp(scores - scores.max()).sum())

    odds = over_vocabulary(scores, logsumexp)

    assert probability(odds) == pytest.approx(p, abs=1e-6)
    assert (odds <= MAX_LOG_ODDS + 1e-6).all()


@given(logits)
def test_of_two_a_list_is_the_margin_and_its_chances_sum_to_one(values: list[float]) -> None:
    assert probability(over_list(values)).sum() == pytest.approx(1, abs=1e-6)
    first, second = over_list(values[:2])
    margin = np.clip(values[0] - values[1], -math.inf, MAX_LOG_ODDS)
    assert first == pytest.approx(margin, abs=1e-3)
    assert min(first, second) <= 1e-9


def test_a_sure_answer_stays_finite() -> None:
    """Float32 rounds a sure answer's logit and log-sum-exp to one number, or past it."""
    assert over_vocabulary([12.0, 12.0], [12.0, 11.9999]) == pytest.approx(
        [MAX_LOG_ODDS, MAX_LOG_ODDS]
    )
    assert over_list([-3.0]) == pytest.approx([MAX_LOG_ODDS])
    assert [of_probability(1), of_probability(0)] == [MAX_LOG_ODDS, -MAX_LOG_ODDS]
