"""The parts of items and queries: texts and images."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["ImagePart", "Part", "PartKind", "TextPart", "select_parts"]

PartKind = Literal["text", "image"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPart:
    """A text; not empty."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePart:
    """The address and the digest of an image; the file stays where it is."""

    #: fsspec URL or absolute path.
    uri: str
    #: SHA-256 of the file as hex digits; empty if the import did not read it.
    sha256: str = ""


Part = TextPart | ImagePart


def select_parts(parts: tuple[Part, ...], kinds: frozenset[PartKind]) -> tuple[Part, ...]:
    """The parts of the given kinds, in their order."""
    return tuple(
        part for part in parts if ("text" if isinstance(part, TextPart) else "image") in kinds
    )
