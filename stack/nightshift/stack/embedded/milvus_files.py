"""Files of Milvus Lite that it would refuse to read: set aside before it starts.

One damaged file makes it refuse every call to a collection, its deletion among them, and leftovers
of a collection keep it from making one of that name. Vectors can be computed again.
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
    """Move what Milvus Lite cannot read out of its directory, beside it.

    Args:
        directory: Of a Milvus Lite that does not run.

    Returns:
        Where it lies now.
    """
    moved = []
    for path in list(_damaged(directory)):
        place = directory.with_name(f"{directory.name}-damaged") / f"{path.name}-{token_hex(4)}"
        place.parent.mkdir(mode=0o700, exist_ok=True)
        path.rename(place)
        _log.warning("%s is damaged and lies in %s now", path, place)
        moved.append(place)
    return moved


def _damaged(directory: Path) -> Iterator[Path]:
    aliases = directory / "aliases.json"
    if aliases.exists() and _read(aliases) is None:
        yield aliases
    for collection in directory.glob("collections/*"):
        if not _is_whole(collection):
            yield collection


def _is_whole(collection: Path) -> bool:
    if "collection_name" not in (_read(collection / "schema.json") or {}):
        return False
    manifests = [collection / name for name in ("manifest.json", "manifest.json.prev")]
    written = [path for path in manifests if path.exists()]
    if written and all(_read(path) is None for path in written):
        return False
    return all(map(_is_parquet, collection.glob("partitions/*/*/*.parquet")))


def _read(path: Path) -> dict[str, object] | None:
    """A JSON object; None where there is none."""
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
