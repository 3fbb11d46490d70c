"""Output of readers: rows as they stand in the source, and rows that cannot be read."""

import gzip
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pyarrow import ArrowException

from nightshift.schema.errors import (
    InputError,
    NightshiftError,
    NotFoundError,
    ServiceUnavailableError,
)

__all__ = ["BadRow", "EmbeddedImage", "RawRow", "Row", "contained"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRow:
    """One row as its source spells it; fields are not yet named, checked or cleaned."""

    #: `file:line`, `file:row` or `file:key`, for the operator to find it.
    position: str
    fields: Mapping[str, Any]
    #: Folder or URL that relative image paths start from.
    folder: str
    #: The id of a row that brings none: relative path or WebDataset key.
    default_id: str | None = None

    def n_bytes(self) -> int:
        """About how many bytes its texts and images hold in memory."""
        return sum(map(_n_bytes, self.fields.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """A row that cannot even be read."""

    position: str
    reason: str
    message: str
    #: The id that the row surely has; without it, any item may be the row's.
    default_id: str | None = None
    #: The rest of its file could not be read either: what else it holds is unknown.
    ends_file: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedImage:
    """The bytes of an image that came inside a Parquet file or a tar."""

    data: bytes
    #: Where the bytes can be read again; empty where they must be kept as a blob.
    address: str = ""
    #: Of the file that holds it, from `files.stamp_of`; empty where it may change unseen.
    stamp: str = ""


Row = RawRow | BadRow


def _n_bytes(value: object) -> int:
    match value:
        case EmbeddedImage():
            return len(value.data)
        case str() | bytes():
            return len(value)
        case list():
            return sum(map(_n_bytes, value))
        case dict():
            return sum(map(_n_bytes, value.values()))
        case _:
            return 0


_Read = TypeVar("_Read")
_DAMAGED = "it is damaged, cut short, or no such file at all"


def contained(name: str, rows: Iterable[_Read]) -> "Iterator[_Read | BadRow]":
    """The rows of one file; what breaks the file becomes its last row, so that the next is read.

    Args:
        name: The file, for the message.
        rows: Its reader.
    """
    try:
        yield from rows
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ArrowException) as error:
        yield _broken(name, "source_malformed", error, _DAMAGED)
    except InputError as error:
        yield BadRow(position=name, reason=error.reason, message=error.message, ends_file=True)
    except (OSError, NotFoundError, ServiceUnavailableError) as error:
        if isinstance(error, OSError) and error.errno is None:
            # Not from the system: Arrow's, of a page that cannot be unpacked.
            yield _broken(name, "source_malformed", error, _DAMAGED)
            return
        yield _broken(name, "source_lost", error, "it went away or may not be read")
    except NightshiftError:
        raise
    except Exception as error:  # noqa: BLE001 - a hostile file finds any fault of any library
        yield _broken(name, "source_malformed", error, "its reader cannot make sense of it")


def _broken(name: str, reason: str, error: Exception, remedy: str) -> BadRow:
    return BadRow(
        position=name,
        reason=reason,
        message=f"{name} cannot be read to its end ({error!s:.500}): {remedy}. Rows before this "
        "one are taken; mend it and import again",
        ends_file=True,
    )
