"""Shapes scenes: what they contain, how they are put into words, and which of them are held out.

A scene is two or three things. Two things stand side by side or one above the other; three
things form a corner, with one neighbour beside the centre thing and one above or below it.
Everything random takes a `random.Random`, so a scene is a pure function of a seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations
from random import Random

SIZES = ("small", "large")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross", "ring")

# Every split owns whole residue classes of `Scene.residue`, so no scene is in two of them.
_RESIDUES = 6
_TEST_RESIDUE = 0
_VALIDATION_RESIDUE = 1
_SHARE_OF_TRIPLES = 0.4


class Relation(StrEnum):
    """Where a thing lies, seen from the thing it is compared with."""

    LEFT = "left"
    RIGHT = "right"
    ABOVE = "above"
    BELOW = "below"

    @property
    def inverse(self) -> Relation:
        """The same fact told from the other thing."""
        return _INVERSE[self]

    @property
    def is_horizontal(self) -> bool:
        """Whether the two things stand side by side."""
        return self in (Relation.LEFT, Relation.RIGHT)


_INVERSE = {
    Relation.LEFT: Relation.RIGHT,
    Relation.RIGHT: Relation.LEFT,
    Relation.ABOVE: Relation.BELOW,
    Relation.BELOW: Relation.ABOVE,
}
_PHRASES = {
    Relation.LEFT: ("left of", "to the left of"),
    Relation.RIGHT: ("right of", "to the right of"),
    Relation.ABOVE: ("above", "over"),
    Relation.BELOW: ("below", "under"),
}
_PLACES = {
    Relation.LEFT: "on its left",
    Relation.RIGHT: "on its right",
    Relation.ABOVE: "above it",
    Relation.BELOW: "below it",
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
    """A centre thing and one or two neighbours, in canonical form: equal scenes look alike.

    A scene of two has its neighbour on the left or above (the other reading is the same
    picture); a scene of three has its horizontal neighbour first. `arrange` makes them so.
    """

    centre: Thing
    beside: tuple[tuple[Relation, Thing], ...]

    @property
    def things(self) -> tuple[Thing, ...]:
        """The centre, then its neighbours."""
        return (self.centre, *(thing for _, thing in self.beside))

    @property
    def residue(self) -> int:
        """A number that swapping colours, shapes, sizes, places or relations leaves as it is.

        It depends on the colours and shapes only as a bag, so the hard negatives that permute
        a held-out scene are held out too, while each colour, shape and pair of them is trained.
        """
        colours = sum(COLOURS.index(thing.colour) for thing in self.things)
        shapes = sum(SHAPES.index(thing.shape) for thing in self.things)
        return (colours + shapes) % _RESIDUES

    @property
    def split(self) -> Split:
        """The split that owns this scene's combination of attributes."""
        if self.residue == _TEST_RESIDUE:
            return Split.TEST
        return Split.VALIDATION if self.residue == _VALIDATION_RESIDUE else Split.TRAIN


def arrange(centre: Thing, *beside: tuple[Relation, Thing]) -> Scene:
    """Build a scene in canonical form from one neighbour, or from one of each direction."""
    if len(beside) == 1:
        relation, thing = beside[0]
        if relation in (Relation.LEFT, Relation.ABOVE):
            return Scene(centre=centre, beside=beside)
        return Scene(centre=thing, beside=((relation.inverse, centre),))
    return Scene(centre=centre, beside=tuple(sorted(beside, key=lambda b: not b[0].is_horizontal)))


def random_scene(rng: Random, split: Split) -> Scene:
    """Draw one scene of a split."""
    while True:
        count = 3 if rng.random() < _SHARE_OF_TRIPLES else 2
        things = [
            Thing(size=rng.choice(SIZES), colour=rng.choice(COLOURS), shape=rng.choice(SHAPES))
            for _ in range(count)
        ]
        if count == 2:
            relations = [rng.choice(tuple(Relation))]
        else:
            relations = [
                rng.choice((Relation.LEFT, Relation.RIGHT)),
                rng.choice((Relation.ABOVE, Relation.BELOW)),
            ]
        scene = arrange(things[0], *zip(relations, things[1:], strict=True))
        if scene.split is split and len(set(things)) == count:
            return scene


def describe(scene: Scene, rng: Random) -> str:
    """Put a scene into words: the same scene reads differently from draw to draw."""
    if len(scene.beside) == 1:
        return _describe_pair(scene, rng)
    return _describe_triple(scene, rng)


def neighbours(scene: Scene) -> list[Scene]:
    """All scenes one permuting edit away, in a fixed order.

    The edits: swapped colours, shapes, sizes or places, or a changed relation. None of them
    leaves the scene's split.
    """
    edited = {*_swapped(scene), *_moved(scene), *_turned(scene)} - {scene}
    return sorted(edited)


def substitute(scene: Scene, rng: Random) -> Scene:
    """Give one thing another size, colour or shape, such that the scene stays in its split."""
    while True:
        index = rng.randrange(len(scene.things))
        field = rng.choice(("size", "colour", "shape"))
        thing = scene.things[index]
        if field == "size":
            changed = replace(thing, size=rng.choice(SIZES))
        elif field == "colour":
            changed = replace(thing, colour=rng.choice(COLOURS))
        else:
            changed = replace(thing, shape=rng.choice(SHAPES))
        if changed in scene.things:
            continue
        things = list(scene.things)
        things[index] = changed
        edited = _with_things(scene, things)
        if edited.split is scene.split:
            return edited


def _describe_pair(scene: Scene, rng: Random) -> str:
    (relation, first), second = scene.beside[0], scene.centre
    if rng.random() < 0.5:
        first, second, relation = second, first, relation.inverse
    match rng.randrange(4):
        case 0 | 1:
            return f"{first} {rng.choice(_PHRASES[relation])} {second}"
        case 2:
            return f"{second} with {first} {_PLACES[relation]}"
        case _:
            return f"there is {first} {rng.choice(_PHRASES[relation])} {second}"


def _describe_triple(scene: Scene, rng: Random) -> str:
    (relation, first), (other_relation, other) = rng.sample(scene.beside, 2)
    if rng.random() < 0.5:
        near = rng.choice(_PHRASES[relation])
        far = rng.choice(_PHRASES[other_relation.inverse])
        return f"{first} {near} {scene.centre}, which is {far} {other}"
    places = f"{first} {_PLACES[relation]} and {other} {_PLACES[other_relation]}"
    return f"{scene.centre} with {places}"


def _with_things(scene: Scene, things: list[Thing]) -> Scene:
    relations = [relation for relation, _ in scene.beside]
    return arrange(things[0], *zip(relations, things[1:], strict=True))


def _swapped(scene: Scene) -> Iterator[Scene]:
    for i, j in combinations(range(len(scene.things)), 2):
        one, two = scene.things[i], scene.things[j]
        for pair in (
            (replace(one, colour=two.colour), replace(two, colour=one.colour)),
            (replace(one, shape=two.shape), replace(two, shape=one.shape)),
            (replace(one, size=two.size), replace(two, size=one.size)),
            (two, one),
        ):
            things = list(scene.things)
            things[i], things[j] = pair
            if len(set(things)) == len(things):
                yield _with_things(scene, things)


def _moved(scene: Scene) -> Iterator[Scene]:
    """One relation turned round."""
    for index, (relation, thing) in enumerate(scene.beside):
        beside = list(scene.beside)
        beside[index] = (relation.inverse, thing)
        yield arrange(scene.centre, *beside)


def _turned(scene: Scene) -> Iterator[Scene]:
    """Side by side becomes one above the other, or the reverse."""
    if len(scene.beside) == 1:
        relation, thing = scene.beside[0]
        across = (
            (Relation.ABOVE, Relation.BELOW)
            if relation.is_horizontal
            else (Relation.LEFT, Relation.RIGHT)
        )
        for turned in across:
            yield arrange(scene.centre, (turned, thing))
    else:
        (horizontal, first), (vertical, second) = scene.beside
        yield arrange(scene.centre, (horizontal, second), (vertical, first))
