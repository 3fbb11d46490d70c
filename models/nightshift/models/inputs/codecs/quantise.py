"""Vectors as bytes: as they are, in 8 bits a number, or as product codes (methods §4.5)."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nightshift.models.inputs.codecs.product import ProductCodebook
from nightshift.schema.errors import ModelError
from nightshift.scoring.codecs import Quantise

__all__ = ["Quantiser", "quantiser"]

Floats = NDArray[np.float32]


class Quantiser(Protocol):
    """Writes float32 vectors (m, width) down; their number and width are known when read back."""

    def encode(self, vectors: Floats) -> bytes:
        """Bytes, as many for each vector."""
        ...

    def decode(self, data: bytes, n_vectors: int) -> Floats:
        """Vectors (n_vectors, width)."""
        ...


def quantiser(rule: Quantise, precision: str, codebook: ProductCodebook | None) -> Quantiser:
    """The quantiser of that name.

    Args:
        rule: Which.
        precision: Of the model whose tokens these are.
        codebook: Trained; for `pq` only.

    Raises:
        ModelError: The codebook is missing.
    """
    match rule.kind:
        case "none":
            plain: dict[str, Quantiser] = {
                "float32": _Float32(),
                "float16": _Float16(),
                "bfloat16": _BFloat16(),
            }
            return plain[precision]
        case "int8":
            return _Int8()
        case "pq":
            if codebook is None:
                raise ModelError(f"{rule} has no codebook yet: run `nightshift tokens build` first")
            return codebook


class _Float32:
    """Lossless for models of 32 bits."""

    def encode(self, vectors: Floats) -> bytes:
        return vectors.astype("<f4").tobytes()

    def decode(self, data: bytes, n_vectors: int) -> Floats:
        return np.frombuffer(data, "<f4").reshape(n_vectors, -1).astype(np.float32)


class _Float16:
    """Lossless for models of float16; what a reduction averaged is rounded."""

    def encode(self, vectors: Floats) -> bytes:
        return vectors.astype("<f2").tobytes()

    def decode(self, data: bytes, n_vectors: int) -> Floats:
        return np.frombuffer(data, "<f2").reshape(n_vectors, -1).astype(np.float32)


class _BFloat16:
    """Lossless for models of bfloat16, the upper half of a float32; the rest rounds to even."""

    def encode(self, vectors: Floats) -> bytes:
        bits = np.ascontiguousarray(vectors, np.float32).view(np.uint32)
        rounded = bits + 0x7FFF + ((bits >> 16) & 1)
        return (rounded >> 16).astype("<u2").tobytes()

    def decode(self, data: bytes, n_vectors: int) -> Floats:
        upper = np.frombuffer(data, "<u2").astype(np.uint32) << 16
        return upper.view(np.float32).reshape(n_vectors, -1)


class _Int8:
    """127 steps to the largest number of each vector, whose scale stands in front."""

    def encode(self, vectors: Floats) -> bytes:
        scales = np.abs(vectors).max(axis=1, keepdims=True).astype("<f4") / np.float32(127)
        steps = np.rint(vectors / np.where(scales, scales, 1)).clip(-127, 127).astype(np.int8)
        return np.concatenate([scales.view(np.int8), steps], axis=1).tobytes()

    def decode(self, data: bytes, n_vectors: int) -> Floats:
        rows = np.frombuffer(data, np.int8).reshape(n_vectors, -1)
        scales = np.ascontiguousarray(rows[:, :4]).view("<f4")
        vectors: Floats = rows[:, 4:].astype(np.float32) * scales
        return vectors
