"""A prompt as plain data: a prefix shared by a group of pairs, then what is each pair's own.

A framing turns the content of a query and of a candidate into segments. Text stays text: the
engine that tokenises it never reads special tokens out of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType
from typing import Literal

from nightshift.schema.errors import InputError
from nightshift.schema.identity import fingerprint
from nightshift.schema.params import Kinds
from nightshift.schema.records import PartKind

__all__ = [
    "MAX_LISTED",
    "AnswerKind",
    "Content",
    "Framing",
    "ImageRef",
    "Labels",
    "Numbers",
    "Rendered",
    "Segment",
    "Side",
    "Slot",
    "Template",
]

#: Candidates of a list at the most: further numbers have two digits, and no single token.
MAX_LISTED = 9

Side = Literal["query", "candidate"]
#: One of two labels, a number to be generated, or the number of one of the candidates.
AnswerKind = Literal["label", "number", "index"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRef:
    """The place of one image in a prompt."""

    side: Side
    #: Position among the images of that side, from 0.
    index: int


Segment = str | ImageRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A part of a query or a candidate that a prompt may show."""

    texts: tuple[str, ...] = ()
    n_images: int = 0

    @property
    def kinds(self) -> Kinds:
        """The kinds of parts that occur."""
        kinds: set[PartKind] = set()
        if self.texts:
            kinds.add("text")
        if self.n_images:
            kinds.add("image")
        return frozenset(kinds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A prompt in two halves; no two strings are adjacent within a half, none is empty."""

    #: A pure function of the shared side's content: a group of pairs computes it once.
    prefix: tuple[Segment, ...]
    suffix: tuple[Segment, ...]
    shared_side: Side


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """The two answers whose logits make the margin; each must be one token of the model."""

    positive: str
    negative: str

    @property
    def words(self) -> tuple[str, ...]:
        """Both, the positive one first."""
        return (self.positive, self.negative)


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """The answers "1" to "k" about a list; each must be one token of the model."""

    k: int

    @property
    def words(self) -> tuple[str, ...]:
        """In order."""
        return tuple(str(number) for number in range(1, self.k + 1))


class Slot(Enum):
    """A place in a template that content fills."""

    QUERY_TEXT = ("query", "text")
    QUERY_IMAGES = ("query", "image")
    CANDIDATE_TEXT = ("candidate", "text")
    CANDIDATE_IMAGES = ("candidate", "image")
    #: Every text a candidate of its own, numbered from 1.
    CANDIDATE_LIST = ("candidate", "list")


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """One prompt of a framing.

    The prefix ends at an image or just before a space, so that the two halves tokenise as the
    whole would.
    """

    shared_side: Side
    prefix: tuple[str | Slot, ...]
    suffix: tuple[str | Slot, ...]
    #: Whether the wording is the authors' own; otherwise it is ours.
    published: bool

    def __post_init__(self) -> None:
        strangers = [
            s for s in self.prefix if isinstance(s, Slot) and s.value[0] != self.shared_side
        ]
        if strangers:
            msg = f"a prefix shared by the {self.shared_side} cannot hold {strangers}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Framing:
    """A way of asking whether a candidate matches a query."""

    name: str
    version: str
    #: What the model is asked to answer with.
    asks_for: AnswerKind = "label"
    #: Its two labels; of an index the first two.
    labels: Labels
    #: By kinds of the query and of the candidate.
    templates: Mapping[tuple[Kinds, Kinds], Template]

    @property
    def digest(self) -> str:
        """16 hex digits over labels and every prompt: part of the scorer's fingerprint."""
        prompts = [
            [sorted(query), sorted(item), t.shared_side, _plain(t.prefix), _plain(t.suffix)]
            for (query, item), t in self.templates.items()
        ]
        facts = {
            "name": self.name,
            "version": self.version,
            "asks_for": self.asks_for,
            "labels": [self.labels.positive, self.labels.negative],
            "prompts": sorted(prompts, key=repr),
        }
        return fingerprint(facts)

    def shared_side(self, query_kinds: Kinds, item_kinds: Kinds) -> Side:
        """The side that comes first in the prompt, by which the planner groups pairs.

        Raises:
            InputError: No prompt of this framing fits these kinds.
        """
        return self._template(query_kinds, item_kinds).shared_side

    def render(self, query: Content, candidate: Content) -> Rendered:
        """The prompt of one pair; several texts of one side are joined by line feeds.

        Raises:
            InputError: One side is empty, or no prompt of this framing fits.
        """
        template = self._template(query.kinds, candidate.kinds)
        sides: dict[Side, Content] = {"query": query, "candidate": candidate}
        return Rendered(
            prefix=_fill(template.prefix, sides),
            suffix=_fill(template.suffix, sides),
            shared_side=template.shared_side,
        )

    def context_free(self) -> Rendered:
        """The question with nothing in the places of query and candidate; what it says of texts."""
        text: Kinds = frozenset({"text"})
        template = self._template(text, text)
        nothing: dict[Side, Content] = {"query": Content(), "candidate": Content()}
        return Rendered(
            prefix=_fill(template.prefix, nothing),
            suffix=_fill(template.suffix, nothing),
            shared_side=template.shared_side,
        )

    def mirrored(self) -> "Framing":
        """The same questions about (candidate, query) in place of (query, candidate)."""
        templates = {
            (query, item): Template(
                shared_side="candidate" if template.shared_side == "query" else "query",
                prefix=tuple(map(_exchanged, template.prefix)),
                suffix=tuple(map(_exchanged, template.suffix)),
                published=False,
            )
            for (item, query), template in self.templates.items()
        }
        return replace(self, name=f"{self.name}_mirrored", templates=MappingProxyType(templates))

    def _template(self, query_kinds: Kinds, item_kinds: Kinds) -> Template:
        try:
            return self.templates[query_kinds, item_kinds]
        except KeyError:
            msg = (
                f"framing {self.name!r} has no prompt for a query of {_names(query_kinds)} and a "
                f"candidate of {_names(item_kinds)}; choose other parts or another framing"
            )
            raise InputError(msg, "no_prompt") from None


def _fill(parts: tuple[str | Slot, ...], sides: Mapping[Side, Content]) -> tuple[Segment, ...]:
    segments: list[Segment] = []
    for part in parts:
        for segment in _segments(part, sides):
            previous = segments[-1] if segments else None
            if isinstance(segment, str) and isinstance(previous, str):
                segments[-1] = previous + segment
            elif segment != "":
                segments.append(segment)
    return tuple(segments)


def _segments(part: str | Slot, sides: Mapping[Side, Content]) -> list[Segment]:
    match part:
        case str():
            return [part]
        case Slot.QUERY_TEXT:
            return ["\n".join(sides["query"].texts)]
        case Slot.CANDIDATE_TEXT:
            return ["\n".join(sides["candidate"].texts)]
        case Slot.QUERY_IMAGES:
            return [ImageRef(side="query", index=i) for i in range(sides["query"].n_images)]
        case Slot.CANDIDATE_IMAGES:
            return [ImageRef(side="candidate", index=i) for i in range(sides["candidate"].n_images)]
        case Slot.CANDIDATE_LIST:
            texts = sides["candidate"].texts
            return [", ".join(f"{i}: {text}" for i, text in enumerate(texts, 1))]


def _exchanged(part: str | Slot) -> str | Slot:
    if isinstance(part, str):
        return part
    side, kind = part.value
    return Slot(("candidate" if side == "query" else "query", kind))


def _plain(parts: tuple[str | Slot, ...]) -> list[list[str]]:
    return [["text", part] if isinstance(part, str) else ["slot", part.name] for part in parts]


def _names(kinds: Kinds) -> str:
    return " and ".join(sorted(kinds)) or "nothing"
