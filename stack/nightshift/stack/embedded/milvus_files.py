"""Damaged files of Milvus Lite, set aside before it starts.

With one damaged file, Milvus Lite refuses every call to the collection, also its deletion. Leftover
files of a collection prevent a new one of the same name. Vectors can be computed again.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

__all__ = ["set_aside_damaged"]

_log = logging.getLogger(__name__)

_PARQUET = b"PAR1"


def set_aside_damaged(directory: Path) -> list[Path]:
    """Move files that Milvus Lite cannot read into a folder beside its directory.

    Args:
        directory: The directory of a Milvus Lite that does not run.

    Returns:
        The new paths of what was moved.
    """
    moved = []
    for path in list(_damaged(directory)):
        place = directory.with_name(f"{directory.name}-damaged") / f"{path.name}-{token_hex(4)}"
        place.parent.mkdir(mode=0o700, exist_ok=True)
        path.rename(place)
        _log.warning("%s is damaged and was moved to %s", path, place)
        moved.append(place)
    return moved


def _damaged(directory: Path) -> Iterator[Path]:
    aliases = directory / "aliases.json"
    if aliases.exists() and _read_json(aliases) is None:
        yield aliases
    for collection in directory.glob("collections/*"):
        if not _is_readable(collection):
            yield collection


def _is_readable(collection: Path) -> bool:
    if "collection_name" not in (_read_json(collection / "schema.json") or {}):
        return False
    manifests = [collection / name for name in ("manifest.json", "manifest.json.prev")]
    present = [path for path in manifests if path.exists()]
    if present and all(_read_json(path) is None for path in present):
        return False
    return all(map(_is_parquet, collection.glob("partitions/*/*/*.parquet")))


def _read_json(path: Path) -> dict[str, object] | None:
    """Read a JSON object; None if the file holds none."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        begins = file.read(4) == _PARQUET
        file.seek(max(0, path.stat().st_size - 4))
        return begins and file.read(4) == _PARQUET
