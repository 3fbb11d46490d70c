"""Answers of a model as log-odds, the form in which every score is stored."""

import re

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["MAX_LOG_ODDS", "of_probability", "over_list", "over_vocabulary", "parse_number"]

#: The largest log-odds; beyond it float32 cannot tell the probability from 1.
MAX_LOG_ODDS = float(np.log(2.0**24 - 1))

# A number after "Answer:", or a text that is only a number. The number must match completely, so
# that neither a sign nor an exponent is lost.
_NUMBER = r"(?P<number>[0-9]*\.?[0-9]+|[0-9]+\.)(?![0-9eE%.,]*[0-9eE%])"
_ANSWER = re.compile(rf"answer\s*:\s*{_NUMBER}", re.IGNORECASE)
_NUMBER_ONLY = re.compile(rf"\s*{_NUMBER}\s*\.?\s*")


def over_vocabulary(logit: ArrayLike, logsumexp: ArrayLike) -> NDArray[np.float64]:
    """Log-odds of one word against all others: `log p − log(1 − p)` with `p = exp(l − L)`.

    Args:
        logit: Logit `l` of the word.
        logsumexp: Log-sum-exp `L` over the vocabulary, the word included.

    Returns:
        The same shape, within ±`MAX_LOG_ODDS` above; finite for finite arguments.
    """
    log_p = np.asarray(logit, np.float64) - np.asarray(logsumexp, np.float64)
    # Rounding to float32 may give a certain answer a probability of 1 or more.
    log_p = np.minimum(log_p, -np.log1p(np.exp(-MAX_LOG_ODDS)))
    odds: NDArray[np.float64] = log_p - np.log(-np.expm1(log_p))
    return odds


def over_list(logits: ArrayLike) -> NDArray[np.float64]:
    """Log-odds of each member of a list against the others: softmax over the list, as log-odds.

    Args:
        logits: (k,) logits of "1" to "k"; not empty.

    Returns:
        (k,), within ±`MAX_LOG_ODDS` above: the only member of a list is certain.
    """
    values = np.asarray(logits, np.float64)
    top = values.max()
    return over_vocabulary(values, top + np.log(np.exp(values - top).sum()))


def of_probability(number: float) -> float:
    """Log-odds `ln p − ln(1 − p)` of a probability in [0, 1], within ±`MAX_LOG_ODDS`."""
    if number in {0.0, 1.0}:
        return MAX_LOG_ODDS if number else -MAX_LOG_ODDS
    return float(np.clip(np.log(number) - np.log1p(-number), -MAX_LOG_ODDS, MAX_LOG_ODDS))


def parse_number(written: str) -> float | None:
    """Parse the relevance score that a model wrote; None if there is none in [0, 1].

    Args:
        written: Text such as `Answer: 0.85`, or only the number.
    """
    match = _ANSWER.search(written) or _NUMBER_ONLY.fullmatch(written)
    if match is None:
        return None
    number = float(match["number"])
    return number if number <= 1 else None
