"""Rows in and hits out: what is checked before it is sent, and how ties are ordered."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightshift.schema.errors import ConflictError
from nightshift.stores.index.milvus.collections import VECTOR

__all__ = [
    "TIE",
    "Hit",
    "batches",
    "check_keys",
    "check_matrix",
    "is_settled",
    "key_expression",
    "key_ranges",
    "ordered",
    "through_ties",
]

# A message of a server's log may have 5 MB, a request 64 MB.
_BATCH_BYTES = 4 * 2**20

#: Similarities closer than this are equal: they are sums of float32 products of unit vectors, and
#: equal contents, embedded or compared in other batches, differ by some 1e-7.
TIE = 1e-6

_KEY = re.compile(r"[0-9a-f]{1,64}")


@dataclass(frozen=True, slots=True)
class Hit:
    """One found vector."""

    key: str
    #: Cosine or inner product; larger is nearer.
    score: float


def check_keys(keys: Sequence[str]) -> None:
    """Raise ConflictError unless all are hexadecimal: a server parses them as an expression."""
    for key in keys:
        if not _KEY.fullmatch(key):
            raise ConflictError(f"{key!r} is no key: a key is a hexadecimal digest")


def batches(keys: Sequence[str], matrix: NDArray[np.float32]) -> Iterator[list[dict[str, Any]]]:
    """Rows as Milvus takes them, as many at once as fit one message."""
    step = max(1, _BATCH_BYTES // (4 * matrix.shape[1] + 64))
    for start in range(0, len(keys), step):
        part = slice(start, start + step)
        yield [{"key": key, VECTOR: row} for key, row in zip(keys[part], matrix[part], strict=True)]


def key_ranges(count: int) -> Iterator[str]:
    """Filter expressions for at least `count` ranges of keys that cover each key once.

    A range begins at one prefix of hexadecimal digits and ends before the next.
    """
    digits = 0
    while 16**digits < count:
        digits += 1
    starts = ["", *(f"{n:0{digits}x}" for n in range(1, 16**digits))]
    for start, end in zip_longest(starts, starts[1:]):
        yield key_expression(start, end)


def key_expression(start: str, end: str | None) -> str:
    """The filter for keys from `start` on and before `end`; None for no end."""
    upper = "" if end is None else f' and key < "{end}"'
    return f'key >= "{start}"{upper}'


def check_matrix(collection: str, vectors: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """The vectors as a contiguous (n, dim) float32 array.

    Raises:
        ConflictError: When the shape does not fit, or a value is not finite.
    """
    matrix = np.ascontiguousarray(vectors, dtype=np.float32)
    if matrix.ndim != 2 or matrix.shape[1] != dim:
        raise ConflictError(
            f"{collection} holds vectors of {dim} numbers, but got an array of shape "
            f"{matrix.shape}: use the embedder that made the index"
        )
    if not np.isfinite(matrix).all():
        raise ConflictError(f"{collection}: a vector to be stored or sought is not finite")
    return matrix


def ordered(hits: Sequence[Any]) -> list[Hit]:
    """Distinct hits, nearest first, ties by key."""
    distinct = {hit["key"]: Hit(hit["key"], float(hit["distance"])) for hit in reversed(hits)}
    return sorted(distinct.values(), key=lambda hit: (-hit.score, hit.key))


def through_ties(hits: Sequence[Hit], limit: int) -> int:
    """Count the first `limit` hits and all behind them that tie with the last."""
    end = min(limit, len(hits))
    while 0 < end < len(hits) and hits[end - 1].score - hits[end].score <= TIE:
        end += 1
    return end


def is_settled(hits: Sequence[Hit], limit: int, requested: int, returned: int) -> bool:
    """Check that no row beyond those returned can be among the first `limit` or tie with them.

    Args:
        hits: As `ordered` gives them.
        limit: How many are wanted.
        requested: How many the server was asked for.
        returned: How many it returned, duplicates included.
    """
    return returned < requested or through_ties(hits, limit) < len(hits)
