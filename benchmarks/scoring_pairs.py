"""For `benchmarks.scoring`: the pairs of each case, drawn again the same way."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from nightshift.models.inputs.content import ItemContent
from nightshift.models.scorers.protocol import PairGroup
from nightshift.scoring.methods.registry import framing
from nightshift.scoring.prompts import Framing, Side

__all__ = ["Case", "PairSource", "Read", "cases", "singles"]

_CAPTION_TOKENS = 20
# Each is one token of the demo's tokenizer when a space precedes it.
_WORDS = (
    "small",
    "large",
    "red",
    "blue",
    "green",
    "circle",
    "square",
    "left",
    "above",
    "of",
    "the",
)

#: Reads one side of a pair; called again wherever a column looks at it again.
Read = Callable[[], ItemContent]


_RETLLM = framing("retllm")


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSource:
    """Pairs that have one side in common, not read yet."""

    shared_side: Side
    shared: Read
    others: tuple[Read, ...]

    def group(self) -> PairGroup:
        """Read them."""
        others = tuple(read() for read in self.others)
        return PairGroup(shared_side=self.shared_side, shared=self.shared(), others=others)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Pairs to score."""

    name: str
    #: A mean in the demo; 1 between images.
    queries_per_image: float
    sources: tuple[PairSource, ...]
    rule: Framing = _RETLLM
    #: Whether reading, resizing and tokenising are part of what is timed.
    end_to_end: bool = False
    #: Pairs that the loop walks through: its rate does not depend on how many, if all are alike.
    n_loop: int = 4


def singles(sources: Sequence[PairSource]) -> Iterator[PairSource]:
    """Each pair by itself, group after group."""
    for entry in sources:
        for other in entry.others:
            yield replace(entry, others=(other,))


def cases(side: int, count: Callable[[str], int]) -> list[Case]:
    """Every case but the demo's.

    Args:
        side: Pixels of an image's side.
        count: Tokens of a text.
    """
    rng = random.Random(0)
    shapes = [("text_to_image", n, m) for n, m in ((1, 16), (4, 4), (16, 2), (64, 1))]
    results = []
    for name, n, m in (*shapes, ("image_to_text", 16, 2)):
        shared_side: Side = "query" if name == "image_to_text" else "candidate"
        sources = tuple(
            PairSource(
                shared_side=shared_side,
                shared=_image(rng, side),
                others=tuple(_caption(rng, count) for _ in range(n)),
            )
            for _ in range(m)
        )
        results.append(Case(name=name, queries_per_image=n, sources=sources))
    images = tuple(_image(rng, side) for _ in range(8))
    pairs = PairSource(shared_side="query", shared=_image(rng, side), others=images)
    choice = PairSource(shared_side="query", shared=_caption(rng, count), others=images)
    return [
        *results,
        Case(name="image_to_image", queries_per_image=1, sources=(pairs,)),
        Case(name="freeret", queries_per_image=1, sources=(choice,), rule=framing("freeret")),
    ]


def _image(rng: random.Random, side: int) -> Read:
    pixels = np.random.default_rng(rng.getrandbits(32)).integers(0, 256, (side, side, 3))
    return _kept(ItemContent(images=(Image.fromarray(pixels.astype(np.uint8)),)))


def _caption(rng: random.Random, count: Callable[[str], int]) -> Read:
    text = "a " + " ".join(rng.choices(_WORDS, k=_CAPTION_TOKENS - 1))
    assert count(text) == _CAPTION_TOKENS, text
    return _kept(ItemContent(texts=(text,)))


def _kept(content: ItemContent) -> Read:
    return lambda: content
