"""A codec: the visual tokens of one image to bytes and back."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from nightshift.models.inputs.codecs.product import ProductCodebook
from nightshift.models.inputs.codecs.quantise import quantiser
from nightshift.models.inputs.codecs.reduce import Reduced, kept, members, reduce_tokens
from nightshift.schema.errors import InputError, ModelError
from nightshift.scoring.codecs import CodecSpec, Grid, index_width

__all__ = ["Codec", "codebook_digest"]

Floats = NDArray[np.float32]


class Codec:
    """Reduces, then quantises; the same bytes for the same tokens.

    Args:
        spec: Which.
        width: Numbers of a token.
        precision: Of the model.
        codebook: As trained, where the spec needs one.

    Raises:
        ModelError: The codebook is missing or for tokens of another width.
    """

    def __init__(
        self, spec: CodecSpec, *, width: int, precision: str, codebook: bytes | None = None
    ) -> None:
        self.spec = spec
        book = ProductCodebook(codebook) if spec.trained and codebook is not None else None
        if book is not None and book.width != width:
            raise ModelError(
                f"the codebook of {spec} is for tokens of {book.width} numbers, the model's have "
                f"{width}: build it again with this model"
            )
        self._width = width
        self._precision = precision
        self._quantiser = quantiser(spec.quantise, precision, book)

    def encode(self, tokens: Floats, grid: Grid) -> bytes:
        """Bytes of one image, as many as `CodecSpec.n_bytes` says.

        Args:
            tokens: (n, width), row by row.
            grid: Of n tokens.

        Raises:
            InputError: A number is not finite, or the tokens do not fill the grid.
        """
        if not np.isfinite(tokens).all():
            raise InputError(
                "the vision tower gave numbers that are not finite; try float32", "not_finite"
            )
        if self.spec.reduce is None:
            return self._quantiser.encode(tokens)
        reduced = reduce_tokens(self.spec.reduce, tokens, grid)
        return _index_bytes(reduced) + self._quantiser.encode(reduced.vectors)

    def decode(self, data: bytes, grid: Grid) -> Floats:
        """The tokens that a prompt shows: (n, width), or fewer where `kept` says so.

        Raises:
            InputError: The bytes are too few or too many.
        """
        expected = self.n_bytes(grid)
        if len(data) != expected:
            raise InputError(
                f"stored tokens have {len(data)} bytes where {self.spec} writes {expected}: build "
                "them again",
                "tokens_corrupt",
            )
        rule = self.spec.reduce
        if rule is None:
            return self._quantiser.decode(data, int(np.prod(grid)))
        n_index = rule.index_bytes(grid)
        vectors = self._quantiser.decode(data[n_index:], rule.n_vectors(grid))
        index = members(rule, grid)
        if n_index:
            stored = np.frombuffer(data[:n_index], f"<u{index_width(len(vectors))}")
            index = stored.astype(np.int64)
        return vectors if index is None else vectors[index]

    def n_bytes(self, grid: Grid) -> int:
        """Bytes of one image."""
        return self.spec.n_bytes(grid, self._width, self._precision)

    def kept(self, grid: Grid) -> NDArray[np.int64] | None:
        """Places, ascending, of the tokens that `decode` gives; None where it gives all."""
        return kept(self.spec.reduce, grid)

    def round_trip(self, tokens: Floats, grid: Grid) -> Floats:
        """Encode and decode tokens; arguments and errors as for `encode`."""
        return tokens if self.spec.lossless else self.decode(self.encode(tokens, grid), grid)


def codebook_digest(codebook: bytes) -> str:
    """A short name of a codebook, 16 hex digits."""
    return hashlib.sha256(codebook).hexdigest()[:16]


def _index_bytes(reduced: Reduced) -> bytes:
    if reduced.index is None:
        return b""
    return reduced.index.astype(f"<u{index_width(len(reduced.vectors))}").tobytes()
