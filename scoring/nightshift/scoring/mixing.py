"""Mix the vectors of a text and an image, as RetLLM's coarse stage does (methods §1.6)."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["MIXING_WEIGHTS", "mix_item", "mix_query", "normalise", "pool", "top_share"]

#: (image, text) by role; part of every embedder's fingerprint.
MIXING_WEIGHTS = {"query": (0.8, 0.2), "item": (0.7, 0.3)}

Vector = NDArray[np.float32]


def mix_query(image: Vector, text: Vector) -> Vector:
    """L2 of `0.8 · image + 0.2 · text`, features as the model gives them.

    Args:
        image: float32 (d,), not normalised.
        text: float32 (d,), not normalised.

    Returns:
        float32 (d,), of length 1; NaN if the sum is zero.
    """
    return _mix("query", image, text)


def mix_item(image: Vector, text: Vector) -> Vector:
    """L2 of `0.7 · image/‖image‖ + 0.3 · text/‖text‖`.

    The published sum is left unnormalised; an index by cosine normalises it in any case.

    Args:
        image: float32 (d,).
        text: float32 (d,).

    Returns:
        float32 (d,), of length 1; NaN if a part or the sum is zero.
    """
    return _mix("item", normalise(image), normalise(text))


def pool(features: Vector) -> Vector:
    """Pool several features of one kind: the mean direction with the mean length.

    A single feature is returned unchanged, so `mix_query` gets it unnormalised.

    Args:
        features: float32 (n, d), n ≥ 1.

    Returns:
        float32 (d,); NaN if a feature is zero.
    """
    if len(features) == 1:
        only: Vector = features[0]
        return only
    lengths = np.linalg.norm(features, axis=1).mean(dtype=np.float32)
    pooled: Vector = normalise(normalise(features).mean(axis=0)) * lengths
    return pooled


def normalise(vectors: Vector) -> Vector:
    """Divide by the L2 norm along the last axis: float32 of the same shape; NaN for zeros."""
    wide = np.asarray(vectors, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit: Vector = (wide / np.linalg.norm(wide, axis=-1, keepdims=True)).astype(np.float32)
    return unit


def top_share(vectors: Vector, top: int = 5) -> NDArray[np.float64]:
    """Share of each vector's squared length in its largest dimensions (methods §3.7).

    If a few dimensions hold most of the length (massive activations), a cosine compares only these.

    Args:
        vectors: float32 (n, d), none of them zero.
        top: The number of dimensions.

    Returns:
        float64 (n,), from min(1, top/d) to 1.
    """
    squares = np.square(vectors, dtype=np.float64)
    largest = np.sort(squares, axis=1)[:, -top:]
    share: NDArray[np.float64] = largest.sum(axis=1) / squares.sum(axis=1)
    return share


def _mix(role: str, image: Vector, text: Vector) -> Vector:
    of_image, of_text = MIXING_WEIGHTS[role]
    return normalise(of_image * image + of_text * text)
