"""From log-odds to probabilities, and their fusion with the coarse score."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nightshift.schema.params import FusionScale

__all__ = ["fuse", "fused", "probability"]

# A cosine of 1 has no finite log-odds.
_MOST_COSINE = 1 - 1e-6


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


def fused(
    coarse: ArrayLike, margins: ArrayLike, *, weight: float, scale: FusionScale = "raw"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The candidates of one query by `weight` of the coarse score and the rest of the fine one.

    Args:
        coarse: (k,) cosines.
        margins: (k,) log-odds; NaN where the pair failed.
        weight: λ in [0, 1].
        scale: `raw` takes cosine and probability as they are. `minmax` brings each to [0, 1] among
            the candidates that have a fine score. `logit` takes log-odds of both: those of a
            cosine c are ln((1 + c) / (1 - c)).

    Returns:
        Scores (k,) in steps of which candidates may tie, and scores (k,) of the same order that
        tell apart what rounding does not; NaN where the pair failed.
    """
    margin = np.asarray(margins, np.float64)
    cosine = np.asarray(coarse, np.float64)
    if scale == "logit":
        bounded = np.clip(cosine, -_MOST_COSINE, _MOST_COSINE)
        exact = fuse(2 * np.arctanh(bounded), margin, weight=weight)
        return probability(exact), exact
    chance = probability(margin)
    if scale == "minmax":
        known = ~np.isnan(margin)
        cosine, chance = _among(cosine, known), _among(chance, known)
    scores = fuse(cosine, chance, weight=weight)
    return scores, scores


def _among(values: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Values with the least of the known ones at 0 and the largest at 1; all at 0 where equal."""
    if not known.any():
        return values
    low, high = values[known].min(), values[known].max()
    scaled: NDArray[np.float64] = (values - low) / (high - low) if high > low else values - low
    return scaled
