"""The vocabulary between the rooms: items, queries and their parts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["ImagePart", "Part", "PartKind", "Record", "TextPart", "present_kinds", "select_parts"]

PartKind = Literal["text", "image"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPart:
    """A text, not empty."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePart:
    """A picture by address and digest; its bytes stay where they are."""

    #: fsspec URL or absolute path.
    uri: str
    #: SHA-256 of the file's bytes, hex; empty when it was not read at import.
    sha256: str = ""


Part = TextPart | ImagePart


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An item or a query: an id, ordered typed parts, and metadata that no model sees."""

    id: str
    parts: tuple[Part, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)


def present_kinds(parts: tuple[Part, ...]) -> frozenset[PartKind]:
    """The kinds of parts that occur."""
    return frozenset("text" if isinstance(part, TextPart) else "image" for part in parts)


def select_parts(parts: tuple[Part, ...], kinds: frozenset[PartKind]) -> tuple[Part, ...]:
    """The parts of the given kinds, in order: what a model of this run may see."""
    return tuple(
        part for part in parts if ("text" if isinstance(part, TextPart) else "image") in kinds
    )
