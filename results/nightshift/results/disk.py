"""Sizes on disk, by what is held: in Postgres, Milvus and files."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nightshift.stores.files.folder_sizes import folder_bytes
from nightshift.stores.index.index_sizes import vector_bytes
from nightshift.stores.postgres.database import Database
from nightshift.stores.postgres.table_sizes import database_bytes, table_bytes
from nightshift.stores.tokens.token_reports import stored_bytes

__all__ = ["DiskPart", "DiskUsage", "disk_usage"]

Place = Literal["postgres", "milvus", "files"]

#: What Postgres holds → its tables, and the command that makes room.
_TABLES = {
    "items": (
        ("catalog", "catalog_import", "item", "item_version", "content", "revision", "known_image"),
        "nightshift catalog prune",
    ),
    "queries": (("query_set", "query", "qrel"), ""),
    "embeddings": (("index", "embedding", "index_range"), "nightshift index prune"),
    "jobs": (("job", "job_count", "job_delta", "tally", "tally_delta"), "nightshift run prune"),
    "candidates": (("candidate",), "nightshift run prune"),
    "scores": (("pair_score", "score"), "nightshift score prune"),
    "lists": (("ranking", "ranked_list", "run_list"), "nightshift run prune"),
    "runs": (
        ("run", "failure", "answer", "calibration", "model", "model_load"),
        "nightshift run prune",
    ),
    "visual tokens": (("token_set", "token_shard", "token_record"), "nightshift tokens prune"),
}
_OTHER = "other"
_REMEDIES = {what: remedy for what, (_, remedy) in _TABLES.items()}
_HOLDS = {table: what for what, (tables, _) in _TABLES.items() for table in tables}
#: Folder of the data directory → what it holds, and the command that makes room.
_FOLDERS = {
    "blobs": ("images of other files", ""),
    "logs": ("logs", ""),
    "redis": ("messages", ""),
    "milvus-damaged": ("damaged files of Milvus", ""),
    "demo": ("demo", ""),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskPart:
    """One kind of thing that takes room."""

    place: Place
    what: str
    bytes: int
    #: False where the bytes are computed from counts.
    measured: bool
    #: The command that makes room; empty where none does.
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskUsage:
    """Everything that takes room, by place."""

    parts: tuple[DiskPart, ...]

    @property
    def bytes(self) -> int:
        """The size of all parts."""
        return sum(part.bytes for part in self.parts)


def disk_usage(database: Database, data_dir: Path, *, embedded_milvus: bool) -> DiskUsage:
    """Sizes by what is held; no row and no file is read for them.

    Args:
        database: Postgres.
        data_dir: Home of the embedded stack, or of the files that workers share.
        embedded_milvus: Whether Milvus keeps its files there.
    """
    with database.begin() as connection:
        of_tables = table_bytes(connection)
        total = database_bytes(connection)
        tokens = stored_bytes(connection)
        vectors = vector_bytes(connection)
    by_kind = Counter[str]()
    for table, size in of_tables.items():
        by_kind[_HOLDS.get(table, _OTHER)] += size
    by_kind[_OTHER] += max(0, total - sum(of_tables.values()))
    kinds = [what for what in (*_TABLES, _OTHER) if by_kind[what]]
    return DiskUsage(
        parts=(
            *(_part("postgres", what, by_kind[what], _REMEDIES.get(what, "")) for what in kinds),
            _vectors(data_dir if embedded_milvus else None, vectors),
            _part("files", "visual tokens", tokens, "nightshift tokens prune"),
            *_folders(data_dir),
        )
    )


def _part(place: Place, what: str, size: int, remedy: str, *, measured: bool = True) -> DiskPart:
    return DiskPart(place=place, what=what, bytes=size, measured=measured, remedy=remedy)


def _vectors(data_dir: Path | None, computed: int) -> DiskPart:
    size = None if data_dir is None else folder_bytes(data_dir / "milvus")
    return _part(
        "milvus",
        "vectors",
        computed if size is None else size,
        "nightshift index prune",
        measured=size is not None,
    )


def _folders(data_dir: Path) -> list[DiskPart]:
    sizes = {name: folder_bytes(data_dir / name) for name in _FOLDERS}
    return [
        _part("files", _FOLDERS[name][0], size, _FOLDERS[name][1])
        for name, size in sizes.items()
        if size is not None
    ]
