"""From log-odds to probabilities, and their fusion with the coarse score."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["fuse", "probability"]


def probability(margin: ArrayLike) -> NDArray[np.float64]:
    """Logistic of a margin, the two-way probability of the positive label; same shape, in [0, 1].

    Args:
        margin: Log-odds `l_positive - l_negative`; NaN (a failed pair) stays NaN.
    """
    z = np.asarray(margin, np.float64)
    # exp of a negative number only: neither branch can overflow.
    small = np.exp(-np.abs(z))
    return np.where(z >= 0, 1 / (1 + small), small / (1 + small))


def fuse(coarse: ArrayLike, fine: ArrayLike, *, weight: float) -> NDArray[np.float64]:
    """`weight · coarse + (1 − weight) · fine`, neither normalised (IndexMLLM, methods §4.1).

    Args:
        coarse: (k,) coarse scores.
        fine: (k,) probabilities.
        weight: λ in [0, 1]; 0, RetLLM's value, leaves the fine score alone, even beside a
            coarse score that is not finite.
    """
    if not 0 <= weight <= 1:
        msg = f"the fusion weight must lie in [0, 1], got {weight}"
        raise ValueError(msg)
    if weight == 0:
        return np.array(fine, np.float64)
    return weight * np.asarray(coarse, np.float64) + (1 - weight) * np.asarray(fine, np.float64)
