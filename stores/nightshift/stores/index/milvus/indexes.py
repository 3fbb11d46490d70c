"""The index types that may be asked for, with the parameters that we build and search them with."""

from dataclasses import dataclass
from typing import Literal, get_args

from nightshift.schema.errors import ConfigurationError

__all__ = ["INDEX_TYPES", "IndexType", "build_parameters", "check_index_type", "search_parameters"]

IndexType = Literal["FLAT", "HNSW", "IVF_FLAT", "IVF_SQ8", "IVF_PQ", "SCANN", "DISKANN"]

INDEX_TYPES: tuple[IndexType, ...] = get_args(IndexType)

# Milvus Lite accepts the others too, reports them finished, and cannot load them after a restart.
_ON_LITE = frozenset({"FLAT", "HNSW", "IVF_FLAT", "IVF_SQ8"})


@dataclass(frozen=True, slots=True)
class _Parameters:
    build: dict[str, int]
    search: dict[str, int]


def check_index_type(name: str, *, lite: bool) -> IndexType:
    """The index type of that name.

    Raises:
        ConfigurationError: When there is none, or this kind of server cannot be trusted with it.
    """
    for known in INDEX_TYPES:
        if known == name and (known in _ON_LITE or not lite):
            return known
    allowed = [known for known in INDEX_TYPES if known in _ON_LITE or not lite]
    server = "Milvus Lite" if lite else "Milvus"
    raise ConfigurationError(
        f"index type {name!r} cannot be used on {server}: choose one of {', '.join(allowed)}"
    )


def build_parameters(index_type: IndexType, dim: int) -> dict[str, int]:
    """Parameters of `create_index`."""
    return _parameters(index_type, dim, 1).build


def search_parameters(index_type: IndexType, limit: int) -> dict[str, int]:
    """Parameters of `search`, wide enough for `limit` hits."""
    return _parameters(index_type, 1, limit).search


def _parameters(index_type: IndexType, dim: int, limit: int) -> _Parameters:
    lists, probes = {"nlist": 1024}, {"nprobe": 64}
    match index_type:
        case "FLAT":
            return _Parameters({}, {})
        case "HNSW":
            return _Parameters({"M": 16, "efConstruction": 200}, {"ef": max(128, 2 * limit)})
        case "IVF_FLAT" | "IVF_SQ8":
            return _Parameters(lists, probes)
        case "IVF_PQ":
            return _Parameters({**lists, "m": _subspaces(dim), "nbits": 8}, probes)
        case "SCANN":
            return _Parameters(lists, {**probes, "reorder_k": 4 * limit})
        case "DISKANN":
            return _Parameters({}, {"search_list": max(100, 2 * limit)})


def _subspaces(dim: int) -> int:
    """The largest divisor of `dim` that leaves at least 4 dimensions to a subspace, or else 1."""
    return max((m for m in range(1, dim // 4 + 1) if dim % m == 0), default=1)
