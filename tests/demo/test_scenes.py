"""What the drawn scenes promise: disjoint splits, canonical form, hard negatives that stay put."""

from itertools import product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshift.demo.scenes import (
    COLOURS,
    SHAPES,
    SIZES,
    Relation,
    Scene,
    Split,
    Thing,
    arrange,
    describe,
    neighbours,
    random_scene,
    substitute,
)

things = st.builds(
    Thing,
    size=st.sampled_from(SIZES),
    colour=st.sampled_from(COLOURS),
    shape=st.sampled_from(SHAPES),
)
splits = st.sampled_from(Split)
seeds = st.integers(0, 2**32)


@given(things, things, st.sampled_from(Relation))
def test_a_scene_of_two_reads_the_same_from_either_side(
    one: Thing, two: Thing, relation: Relation
) -> None:
    assert arrange(one, (relation, two)) == arrange(two, (relation.inverse, one))


@given(things, things, things)
def test_a_scene_of_three_does_not_depend_on_the_order_of_its_neighbours(
    centre: Thing, one: Thing, two: Thing
) -> None:
    beside = ((Relation.LEFT, one), (Relation.ABOVE, two))
    assert arrange(centre, *beside) == arrange(centre, *reversed(beside))


@given(seeds, splits)
def test_a_random_scene_belongs_to_the_split_that_was_asked_for(seed: int, split: Split) -> None:
    assert random_scene(Random(seed), split).split is split


@given(seeds, splits)
def test_hard_negatives_differ_and_never_leave_their_split(seed: int, split: Split) -> None:
    rng = Random(seed)
    scene = random_scene(rng, split)
    others = [*neighbours(scene), substitute(scene, rng)]
    assert scene not in others
    assert {other.split for other in others} == {split}


def test_splits_hold_out_whole_combinations_of_colours_and_shapes() -> None:
    owners: dict[tuple[tuple[str, ...], tuple[str, ...]], set[Split]] = {}
    for colours in product(COLOURS, repeat=2):
        for shapes in product(SHAPES, repeat=2):
            for sizes, relation in product(product(SIZES, repeat=2), Relation):
                one, two = (
                    Thing(size=size, colour=colour, shape=shape)
                    for size, colour, shape in zip(sizes, colours, shapes, strict=True)
                )
                bag = (tuple(sorted(colours)), tuple(sorted(shapes)))
                owners.setdefault(bag, set()).add(arrange(one, (relation, two)).split)
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


@pytest.mark.parametrize(
    ("relation", "words"),
    [
        (Relation.LEFT, {"left of", "on its left", "right of"}),
        (Relation.ABOVE, {"above", "over", "above it", "below", "under", "below it"}),
    ],
)
def test_a_description_names_every_thing_and_the_relation(
    relation: Relation, words: set[str]
) -> None:
    one = Thing(size="small", colour="red", shape="circle")
    two = Thing(size="large", colour="blue", shape="square")
    scene: Scene = arrange(two, (relation, one))
    texts = {describe(scene, Random(seed)) for seed in range(200)}
    assert len(texts) > 8
    assert all("a small red circle" in text and "a large blue square" in text for text in texts)
    assert all(any(word in text for word in words | {"on its right"}) for text in texts)


def test_the_order_of_a_description_tells_the_two_readings_apart() -> None:
    one = Thing(size="small", colour="red", shape="circle")
    two = Thing(size="large", colour="blue", shape="square")
    left = {describe(arrange(two, (Relation.LEFT, one)), Random(seed)) for seed in range(200)}
    right = {describe(arrange(two, (Relation.RIGHT, one)), Random(seed)) for seed in range(200)}
    assert "a small red circle left of a large blue square" in left
    assert not left & right
