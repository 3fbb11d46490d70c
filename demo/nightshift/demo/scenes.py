"""Shapes scenes: what they contain, how they are put into words, and which of them are held out.

A scene is two or three things in a row or in a column. Words name them in reading order, from
left to right or from top to bottom. Everything random takes a `random.Random`, so a scene is a
pure function of a seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations, product
from random import Random
from zlib import crc32

SIZES = ("small", "large")
COLOURS = ("red", "yellow", "green", "blue", "white", "black")
SHAPES = ("circle", "square", "triangle", "star", "cross")

# Every split owns whole residue classes of `Scene.residue`, so no scene is in two of them.
_RESIDUES = 6
_TEST_RESIDUE = 0
_VALIDATION_RESIDUE = 1
_SHARE_OF_TRIPLES = 0.4
_MAX_THINGS = 3


class Axis(StrEnum):
    """Along which axis the things stand."""

    ROW = "row"
    COLUMN = "column"

    @property
    def other(self) -> Axis:
        """The other axis."""
        return Axis.COLUMN if self is Axis.ROW else Axis.ROW


_PHRASES = {
    Axis.ROW: ("left of", "to the left of"),
    Axis.COLUMN: ("above", "over"),
}
_ENDS = {
    Axis.ROW: "from left to right",
    Axis.COLUMN: "from top to bottom",
}


class Split(StrEnum):
    """Which part of the scenes a scene belongs to."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Thing:
    """One drawn object."""

    size: str
    colour: str
    shape: str

    def __str__(self) -> str:
        return f"a {self.size} {self.colour} {self.shape}"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Scene:
    """Two or three different things, the leftmost or topmost first."""

    direction: Axis
    things: tuple[Thing, ...]

    @property
    def turned(self) -> Scene:
        """The same things in the same order along the other axis."""
        return replace(self, direction=self.direction.other)

    @property
    def residue(self) -> int:
        """A number that swapping colours, shapes, sizes or places leaves as it is.

        It depends on the colours and shapes only as bags, so the hard negatives that permute
        a held-out scene are held out too, while each colour, shape and pair of them is trained.
        """
        bags = [
            *sorted(thing.colour for thing in self.things),
            *sorted(thing.shape for thing in self.things),
        ]
        return crc32(" ".join(bags).encode()) % _RESIDUES

    @property
    def split(self) -> Split:
        """The split that owns this scene's combination of attributes."""
        if self.residue == _TEST_RESIDUE:
            return Split.TEST
        return Split.VALIDATION if self.residue == _VALIDATION_RESIDUE else Split.TRAIN


def random_scene(rng: Random, split: Split) -> Scene:
    """Draw one scene of a split."""
    while True:
        count = 3 if rng.random() < _SHARE_OF_TRIPLES else 2
        things = tuple(
            Thing(size=rng.choice(SIZES), colour=rng.choice(COLOURS), shape=rng.choice(SHAPES))
            for _ in range(count)
        )
        scene = Scene(direction=rng.choice(tuple(Axis)), things=things)
        if scene.split is split and len(set(things)) == count:
            return scene


def describe(scene: Scene, rng: Random) -> str:
    """Put a scene into words: the same scene reads differently from draw to draw.

    The same state of `rng` words two scenes of as many things in the same manner.
    """
    first, *others = map(str, scene.things)
    near, far = (rng.choice(_PHRASES[scene.direction]) for _ in range(2))
    ends = _ENDS[scene.direction]
    match rng.randrange(3), others:
        case 0, [second]:
            return f"there is {first} {near} {second}"
        case _, [second]:
            return f"{first} {near} {second}"
        case 0, [second, third]:
            return f"{first} {near} {second}, which is {far} {third}"
        case 1, [second, third]:
            return f"{first}, {second} and {third} {ends}"
        case _:
            return f"{ends} {first}, {others[0]} and {others[1]}"


def neighbours(scene: Scene) -> list[Scene]:
    """All scenes one permuting edit away, in a fixed order.

    The edits: swapped colours, shapes, sizes or places, or the row turned into a column. None
    of them leaves the scene's split.
    """
    return sorted({scene.turned, *_swapped(scene)} - {scene})


def substitutes(scene: Scene) -> list[Scene]:
    """All scenes of the same split in which one thing has another size, colour or shape."""
    edited = [
        _with(scene, {index: replace(thing, **{field: value})})
        for index, thing in enumerate(scene.things)
        for field, values in (("size", SIZES), ("colour", COLOURS), ("shape", SHAPES))
        for value in values
    ]
    return [
        other
        for other in edited
        if other.split is scene.split
        and other != scene
        and len(set(other.things)) == len(other.things)
    ]


def recounted(scene: Scene) -> list[Scene]:
    """All scenes of the same split with one thing more, or with one thing less of three."""
    things = scene.things
    if len(things) == _MAX_THINGS:
        edited = [things[:index] + things[index + 1 :] for index in range(len(things))]
    else:
        edited = [
            (*things[:index], Thing(size=size, colour=colour, shape=shape), *things[index:])
            for index in range(len(things) + 1)
            for size, colour, shape in product(SIZES, COLOURS, SHAPES)
        ]
    others = [replace(scene, things=entry) for entry in edited if len(set(entry)) == len(entry)]
    return [other for other in others if other.split is scene.split]


def _swapped(scene: Scene) -> Iterator[Scene]:
    for i, j in combinations(range(len(scene.things)), 2):
        entry, two = scene.things[i], scene.things[j]
        for first, second in (
            (replace(entry, colour=two.colour), replace(two, colour=entry.colour)),
            (replace(entry, shape=two.shape), replace(two, shape=entry.shape)),
            (replace(entry, size=two.size), replace(two, size=entry.size)),
            (two, entry),
        ):
            edited = _with(scene, {i: first, j: second})
            if len(set(edited.things)) == len(edited.things):
                yield edited


def _with(scene: Scene, changed: dict[int, Thing]) -> Scene:
    things = tuple(changed.get(index, thing) for index, thing in enumerate(scene.things))
    return replace(scene, things=things)
