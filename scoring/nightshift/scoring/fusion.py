"""Probabilities of log-odds, and their fusion with the coarse score."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nightshift.schema.params import FusionScale

__all__ = ["fuse", "fused", "probability"]

# A cosine of 1 has no finite log-odds.
_MAX_COSINE = 1 - 1e-6


def probability(margin: ArrayLike) -> NDArray[np.float64]:
    """Probability of the positive label, `1 / (1 + exp(−margin))`; same shape, in [0, 1].

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
        weight: λ in [0, 1]; 0, RetLLM's value, returns the fine score, even if a coarse score
            is not finite.
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
    """Fuse the scores of one query's candidates: `weight` of the coarse, the rest of the fine one.

    Args:
        coarse: (k,) cosines.
        margins: (k,) log-odds; NaN if the pair failed.
        weight: λ in [0, 1].
        scale: `raw` takes cosine and probability as they are. `minmax` brings each to [0, 1] among
            the candidates that have a fine score. `logit` takes log-odds of both: those of a
            cosine c are ln((1 + c) / (1 - c)).

    Returns:
        Scores (k,) in [0, 1] for the tie rule, and unrounded scores (k,) of the same order; NaN if
        the pair failed.
    """
    margin = np.asarray(margins, np.float64)
    cosine = np.asarray(coarse, np.float64)
    if scale == "logit":
        bounded = np.clip(cosine, -_MAX_COSINE, _MAX_COSINE)
        exact = fuse(2 * np.arctanh(bounded), margin, weight=weight)
        return probability(exact), exact
    chance = probability(margin)
    if scale == "minmax":
        known = ~np.isnan(margin)
        cosine, chance = _scale_to_known(cosine, known), _scale_to_known(chance, known)
    scores = fuse(cosine, chance, weight=weight)
    return scores, scores


def _scale_to_known(values: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Scale values so that the known ones span 0 to 1; all 0 if the known ones are equal."""
    if not known.any():
        return values
    low, high = values[known].min(), values[known].max()
    scaled: NDArray[np.float64] = (values - low) / (high - low) if high > low else values - low
    return scaled
