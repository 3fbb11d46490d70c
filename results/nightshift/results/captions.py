"""Captions: an item or a query in one short line."""

from pathlib import PurePosixPath

from nightshift.schema.display import visible
from nightshift.schema.records import ImagePart, Part, TextPart
from nightshift.stores.files.addresses import MemberAddress, without_password

__all__ = ["caption", "first_image", "shorten"]


def caption(parts: tuple[Part, ...], length: int) -> str:
    """The texts of a record, or else its image file names; at most `length` characters."""
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    names = [_file_name(part.uri) for part in parts if isinstance(part, ImagePart)]
    return shorten(" · ".join(texts or names), length)


def first_image(parts: tuple[Part, ...]) -> ImagePart | None:
    """The first image of a record, or None."""
    return next((part for part in parts if isinstance(part, ImagePart)), None)


def shorten(value: str, length: int) -> str:
    """One line of at most `length` characters, with control characters escaped."""
    line = visible(" ".join(value.split()))
    return line if len(line) <= length else f"{line[: length - 1].rstrip()}…"


def _file_name(uri: str) -> str:
    """The last name of a path or URL, without the query of the URL, which may hold a signature."""
    member = MemberAddress.parse(uri)
    return PurePosixPath(member.name if member else without_password(uri)).name
