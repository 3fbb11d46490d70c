"""What an item or a query is, in few words."""

from pathlib import PurePosixPath

from nightshift.schema.display import visible
from nightshift.schema.records import ImagePart, Part, TextPart
from nightshift.stores.files.addresses import MemberAddress, without_password

__all__ = ["caption", "first_image", "shorten"]


def caption(parts: tuple[Part, ...], length: int) -> str:
    """Its texts, or where it has none the names of its image files; at most `length` characters."""
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    names = [_file_name(part.uri) for part in parts if isinstance(part, ImagePart)]
    return shorten(" · ".join(texts or names), length)


def first_image(parts: tuple[Part, ...]) -> ImagePart | None:
    """The first image, if there is any."""
    return next((part for part in parts if isinstance(part, ImagePart)), None)


def shorten(value: str, length: int) -> str:
    """One line of at most `length` characters, without what a terminal would obey."""
    line = visible(" ".join(value.split()))
    return line if len(line) <= length else f"{line[: length - 1].rstrip()}…"


def _file_name(uri: str) -> str:
    """The name behind the last slash; of a web address without its query, where signatures are."""
    member = MemberAddress.parse(uri)
    return PurePosixPath(member.name if member else without_password(uri)).name
