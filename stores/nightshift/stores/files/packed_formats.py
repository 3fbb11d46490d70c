"""Packed files and formats that are not read: recognised by their first bytes or their extension.

The one list of such formats, used for catalogues (`producers.sources`) and for images
(`image_formats`).
"""

from dataclasses import dataclass

__all__ = ["PackedFormat", "is_gzip", "packed_format", "packed_format_by_suffix"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedFormat:
    """A format that is not read where it was found, and what the user can do about it."""

    #: Completes the sentence "the file is …".
    description: str
    remedy: str
    #: First bytes of such a file.
    signature: bytes
    suffixes: tuple[str, ...] = ()
    #: True for a format that may contain any file, False for a table.
    is_container: bool = True


_GZIP = PackedFormat(
    description="packed with gzip", remedy="unpack it: `gunzip`", signature=b"\x1f\x8b"
)
_FORMATS = (
    _GZIP,
    PackedFormat(
        description="packed with bzip2",
        remedy="unpack it: `bunzip2`",
        signature=b"BZh",
        suffixes=(".bz2",),
    ),
    PackedFormat(
        description="packed with xz",
        remedy="unpack it: `unxz`",
        signature=b"\xfd7zXZ",
        suffixes=(".xz",),
    ),
    PackedFormat(
        description="packed with zstd",
        remedy="unpack it: `unzstd`",
        signature=b"\x28\xb5\x2f\xfd",
        suffixes=(".zst",),
    ),
    PackedFormat(
        description="a zip file",
        remedy="unpack it; if it is a spreadsheet, save the sheet as CSV",
        signature=b"PK\x03\x04",
        suffixes=(".zip",),
    ),
    PackedFormat(
        description="a spreadsheet",
        remedy="save the sheet as CSV",
        signature=b"\xd0\xcf\x11\xe0",
        suffixes=(".xls", ".xlsx", ".ods"),
        is_container=False,
    ),
    PackedFormat(
        description="an Arrow file",
        remedy="write it as Parquet",
        signature=b"ARROW1",
        suffixes=(".arrow", ".feather"),
        is_container=False,
    ),
    PackedFormat(
        description="Parquet",
        remedy="give it a name that ends in .parquet",
        signature=b"PAR1",
        is_container=False,
    ),
)


def packed_format(head: bytes) -> PackedFormat | None:
    """The packed format that a file's first bytes belong to; None for any other file."""
    return next((known for known in _FORMATS if head.startswith(known.signature)), None)


def packed_format_by_suffix(suffix: str) -> PackedFormat | None:
    """The packed format of an extension such as `.zip`; None for any other extension."""
    return next((known for known in _FORMATS if suffix in known.suffixes), None)


def is_gzip(head: bytes) -> bool:
    """True if a file begins as gzip does."""
    return head.startswith(_GZIP.signature)
