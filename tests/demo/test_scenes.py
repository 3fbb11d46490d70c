"""The drawn scenes have disjoint splits, hard negatives that stay put, clear words."""

from dataclasses import replace
from itertools import product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshift.demo.scenes import (
    COLOURS,
    SHAPES,
    SIZES,
    Axis,
    Scene,
    Split,
    Thing,
    describe,
    neighbours,
    random_scene,
    recounted,
    substitutes,
)

CIRCLE = Thing(size="small", colour="red", shape="circle")
SQUARE = Thing(size="large", colour="blue", shape="square")
STAR = Thing(size="small", colour="white", shape="star")

splits = st.sampled_from(Split)
seeds = st.integers(0, 2**32)


@given(seeds, splits)
def test_a_random_scene_belongs_to_the_split_that_was_asked_for(seed: int, split: Split) -> None:
    scene = random_scene(Random(seed), split)
    assert scene.split is split
    assert len(set(scene.things)) == len(scene.things) in (2, 3)


@given(seeds, splits)
def test_hard_negatives_differ_and_never_leave_their_split(seed: int, split: Split) -> None:
    rng = Random(seed)
    scene = random_scene(rng, split)
    others = [*neighbours(scene), *substitutes(scene), *recounted(scene)]
    assert scene not in others
    assert {other.split for other in others} == {split}


def test_hard_negatives_swap_every_attribute_and_turn_the_row() -> None:
    scene = Scene(direction=Axis.ROW, things=(CIRCLE, SQUARE))
    worded = {describe(near, Random(3)) for near in neighbours(scene)}
    assert worded == {
        "a small blue circle left of a large red square",
        "a small red square left of a large blue circle",
        "a large red circle left of a small blue square",
        "a large blue square left of a small red circle",
        "a small red circle above a large blue square",
    }


def test_a_scene_of_three_is_recounted_by_leaving_one_out() -> None:
    scene = Scene(direction=Axis.ROW, things=(CIRCLE, SQUARE, STAR))
    pairs = {(CIRCLE, SQUARE), (CIRCLE, STAR), (SQUARE, STAR)}
    left = {other.things for other in recounted(scene)}
    held = {pair for pair in pairs if replace(scene, things=pair).split is scene.split}
    assert left == held


def test_a_scene_of_two_is_recounted_by_adding_a_third_anywhere() -> None:
    scene = Scene(direction=Axis.COLUMN, things=(CIRCLE, SQUARE))
    others = [other.things for other in recounted(scene)]
    assert {len(things) for things in others} == {3}
    for place in range(3):
        assert any(things[:place] + things[place + 1 :] == scene.things for things in others)


def test_splits_hold_out_whole_combinations_of_colours_and_shapes() -> None:
    owners: dict[tuple[tuple[str, ...], tuple[str, ...]], set[Split]] = {}
    for colours in product(COLOURS, repeat=2):
        for shapes in product(SHAPES, repeat=2):
            for sizes, direction in product(product(SIZES, repeat=2), Axis):
                things = tuple(
                    Thing(size=size, colour=colour, shape=shape)
                    for size, colour, shape in zip(sizes, colours, shapes, strict=True)
                )
                bag = (tuple(sorted(colours)), tuple(sorted(shapes)))
                owners.setdefault(bag, set()).add(Scene(direction=direction, things=things).split)
    assert {len(splits) for splits in owners.values()} == {1}


def test_every_coloured_shape_is_seen_in_training_and_in_the_test() -> None:
    rng = Random(0)
    for split in (Split.TRAIN, Split.TEST):
        drawn = {
            (thing.colour, thing.shape)
            for _ in range(3000)
            for thing in random_scene(rng, split).things
        }
        assert drawn == set(product(COLOURS, SHAPES))


@pytest.mark.parametrize("things", [(CIRCLE, SQUARE), (CIRCLE, SQUARE, STAR)])
@pytest.mark.parametrize(
    ("direction", "words"),
    [
        (Axis.ROW, {"left of", "from left to right"}),
        (Axis.COLUMN, {"above", "over", "from top to bottom"}),
    ],
)
def test_a_description_names_the_things_in_order_and_how_they_stand(
    direction: Axis, words: set[str], things: tuple[Thing, ...]
) -> None:
    scene = Scene(direction=direction, things=things)
    texts = {describe(scene, Random(seed)) for seed in range(200)}
    assert len(texts) >= 4
    for text in texts:
        places = [text.index(str(thing)) for thing in things]
        assert places == sorted(places)
        assert any(word in text for word in words)


@given(seeds)
def test_one_manner_words_a_scene_and_its_hard_negatives_alike(seed: int) -> None:
    scene = random_scene(Random(seed), Split.TRAIN)
    said = describe(scene, Random(seed)).split()
    for near in neighbours(scene):
        if near.direction is scene.direction:
            assert len(describe(near, Random(seed)).split()) == len(said)
