"""Product quantisation of visual tokens by faiss (methods §4.1, mode 1).

How the authors trained theirs is not published; ours: k-means in each part, from a fixed seed, on
the tokens of a sample of images, the codebook stored beside the tokens.
"""

import io
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from nightshift.schema.errors import ModelError
from nightshift.scoring.codecs import Quantise

__all__ = ["ProductCodebook", "train"]

_SEED = 1234
# faiss' own advice: fewer leave codes unused, more are not looked at.
_MAX_VECTORS_PER_CODE = 256


class ProductCodebook:
    """Codes for each part of a vector.

    Args:
        data: As `to_bytes` gave it.

    Raises:
        ModelError: It is no codebook.
    """

    def __init__(self, data: bytes) -> None:
        try:
            centroids = np.load(io.BytesIO(data), allow_pickle=False)
            parts, codes, width = centroids.shape
        except (ValueError, OSError, EOFError) as error:
            raise ModelError(f"the codebook cannot be read: {error}; build it again") from error
        self._quantiser = faiss.ProductQuantizer(parts * width, parts, int(codes).bit_length() - 1)
        faiss.copy_array_to_vector(
            np.ascontiguousarray(centroids, np.float32).ravel(), self._quantiser.centroids
        )
        self._data = data

    @property
    def width(self) -> int:
        """Length of the vectors that it takes."""
        return int(self._quantiser.d)

    def to_bytes(self) -> bytes:
        """Centroids (parts, codes, width of a part), as a numpy file."""
        return self._data

    def encode(self, vectors: NDArray[np.float32]) -> bytes:
        """Codes of (m, width)."""
        codes: NDArray[np.uint8] = self._quantiser.compute_codes(np.ascontiguousarray(vectors))
        return codes.tobytes()

    def decode(self, data: bytes, n_vectors: int) -> NDArray[np.float32]:
        """The inverse of `encode`, up to the loss."""
        codes = np.frombuffer(data, np.uint8).reshape(n_vectors, -1)
        # faiss changes its methods when it is imported; its stubs tell of those before.
        quantiser: Any = self._quantiser
        vectors: NDArray[np.float32] = quantiser.decode(codes.copy())
        return vectors


def train(rule: Quantise, vectors: NDArray[np.float32]) -> ProductCodebook:
    """Learn a codebook.

    Args:
        rule: Of kind `pq`.
        vectors: (n, width), a sample.

    Raises:
        ModelError: The width is no multiple of the parts, or there are fewer vectors than codes.
    """
    n_vectors, width = vectors.shape
    if width % rule.parts:
        raise ModelError(
            f"{rule} cannot cut visual tokens of {width} numbers into {rule.parts} equal parts: "
            f"choose a divisor of {width}"
        )
    if n_vectors < 2**rule.bits:
        raise ModelError(
            f"{rule} learns {2**rule.bits} codes and was given {n_vectors} visual tokens: import "
            "more images, or use fewer bits"
        )
    quantiser = faiss.ProductQuantizer(width, rule.parts, rule.bits)
    quantiser.cp.seed = _SEED
    quantiser.cp.max_points_per_centroid = _MAX_VECTORS_PER_CODE
    quantiser.cp.min_points_per_centroid = 1
    quantiser.train(np.ascontiguousarray(vectors, np.float32))
    centroids = faiss.vector_to_array(quantiser.centroids)
    stream = io.BytesIO()
    np.save(stream, centroids.reshape(rule.parts, 2**rule.bits, width // rule.parts))
    return ProductCodebook(stream.getvalue())
