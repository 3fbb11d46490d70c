"""The interface of scorers: a method bound to a model, for groups of pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from nightshift.models.engine.protocol import PreparedGroups, Trace
from nightshift.models.inputs.content import ItemContent
from nightshift.models.inputs.images import PreparedImage
from nightshift.scoring.prompts import Side

__all__ = [
    "PairGroup",
    "PairReading",
    "Scorer",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairGroup:
    """Pairs that have one side in common."""

    #: Which side `shared` is; the framing says it (`Framing.shared_side`).
    shared_side: Side
    shared: ItemContent
    others: tuple[ItemContent, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairReading:
    """The score of one (query, candidate) pair, never rounded.

    Where the model wrote the score there are no logits to read.
    """

    #: Log-odds, float32: the positive label's logit minus the negative's, unless the score is
    #: another one.
    margin: float
    logit_positive: float | None
    logit_negative: float | None
    #: Over the whole vocabulary.
    logsumexp: float | None
    #: Nats, over the whole vocabulary.
    entropy: float | None
    trace: Trace
    #: What the model wrote, where that is the score.
    written: str | None = None


class Scorer(Protocol):
    """A method bound to weights and parameters."""

    @property
    def fingerprint(self) -> str:
        """Weights, precision, framing, pixel limits and enhancement, in one name."""
        ...

    def plain(self) -> "Scorer":
        """The same weights and prompts without the visual enhancement, to see what it changed."""
        ...

    def for_ties(self) -> "Scorer":
        """The scorer that decides ties by entropy; itself where it reads entropies."""
        ...

    def prepare_image(self, image: Image.Image) -> PreparedImage:
        """See `Engine.prepare_image`."""
        ...

    def prepare(self, groups: Sequence[PairGroup]) -> PreparedGroups:
        """Render, tokenise and preprocess, on the CPU; any thread may call it.

        Raises:
            InputError: A pair cannot be asked about; score pairs one by one to learn which.
        """
        ...

    def score(self, prepared: PreparedGroups) -> list[tuple[PairReading, ...]]:
        """One reading for each of a group's others, in order.

        Raises:
            InputError: A score is not finite; score pairs one by one to learn which.
        """
        ...
