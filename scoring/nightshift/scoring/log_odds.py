"""What a model answered, as log-odds: the one form in which every score is kept."""

import re

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["MAX_LOG_ODDS", "of_probability", "over_list", "over_vocabulary", "parse_number"]

#: Beyond it float32 cannot tell a probability from 1.
MAX_LOG_ODDS = float(np.log(2.0**24 - 1))

# A number behind "Answer:", or the only thing that was written. The whole of it must match, so
# that neither a sign nor an exponent is lost on the way.
_NUMBER = r"(?P<number>[0-9]*\.?[0-9]+|[0-9]+\.)(?![0-9eE%.,]*[0-9eE%])"
_ANSWER = re.compile(rf"answer\s*:\s*{_NUMBER}", re.IGNORECASE)
_ALONE = re.compile(rf"\s*{_NUMBER}\s*\.?\s*")


def over_vocabulary(logit: ArrayLike, logsumexp: ArrayLike) -> NDArray[np.float64]:
    """Log-odds of one word against all others: `log p − log(1 − p)` with `p = exp(l − L)`.

    Args:
        logit: Of the word.
        logsumexp: Over the whole vocabulary, the word included.

    Returns:
        The same shape, within ±`MAX_LOG_ODDS` above; finite for finite arguments.
    """
    log_p = np.asarray(logit, np.float64) - np.asarray(logsumexp, np.float64)
    # Rounding of float32 may bring a sure answer to 1 and beyond.
    log_p = np.minimum(log_p, -np.log1p(np.exp(-MAX_LOG_ODDS)))
    found: NDArray[np.float64] = log_p - np.log(-np.expm1(log_p))
    return found


def over_list(logits: ArrayLike) -> NDArray[np.float64]:
    """Log-odds of each member of a list against all others of it.

    Args:
        logits: (k,) of "1" to "k"; not empty.

    Returns:
        (k,), within ±`MAX_LOG_ODDS` above: a list of one is sure.
    """
    found = np.asarray(logits, np.float64)
    top = found.max()
    return over_vocabulary(found, top + np.log(np.exp(found - top).sum()))


def of_probability(number: float) -> float:
    """Log-odds of a written probability in [0, 1], within ±`MAX_LOG_ODDS`."""
    if number in {0.0, 1.0}:
        return MAX_LOG_ODDS if number else -MAX_LOG_ODDS
    return float(np.clip(np.log(number) - np.log1p(-number), -MAX_LOG_ODDS, MAX_LOG_ODDS))


def parse_number(written: str) -> float | None:
    """The relevance score that a model wrote; None where there is none in [0, 1].

    Args:
        written: Such as `Answer: 0.85`, as asked for, or the bare number.
    """
    found = _ANSWER.search(written) or _ALONE.fullmatch(written)
    if found is None:
        return None
    number = float(found["number"])
    return number if number <= 1 else None
