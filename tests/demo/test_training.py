"""Training batches: prompts packed behind one beginning read as they would alone."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from nightshift.demo.prompts import IMAGE, freeret, indexmllm, retllm
from nightshift.demo.scenes import Axis, Scene, Split, Thing
from nightshift.demo.train.network import build_model, collate, hidden_states
from nightshift.demo.train.pool import NOTHING, Pool, draw_pool
from nightshift.demo.train.questions import Shown
from nightshift.demo.train.rows import IGNORED, Caption, Likeness, Row, RowMaker, packed
from nightshift.demo.train.tokenizers import scorer_tokenizer

SAID = "a small red circle left of a large blue square"
FALSE = "a small blue circle left of a large red square"
CIRCLE = Thing(size="small", colour="red", shape="circle")
SQUARE = Thing(size="large", colour="blue", shape="square")
SCENE = Scene(direction=Axis.ROW, things=(CIRCLE, SQUARE))
OWNERS = np.array([NOTHING] * 10 + [0, 1] + [NOTHING] * 13, dtype=np.int8)


@pytest.fixture(scope="module")
def pool() -> Pool:
    return draw_pool(0, Split.TRAIN, 4)


@pytest.fixture(scope="module")
def maker() -> RowMaker:
    return RowMaker(scorer_tokenizer(0))


@pytest.fixture(scope="module")
def model() -> Qwen2_5_VLForConditionalGeneration:
    torch.manual_seed(0)
    untrained = build_model(scorer_tokenizer(0))
    untrained.eval()
    return untrained


def captions(maker: RowMaker) -> list[Row]:
    return [
        maker.row(
            retllm(text),
            images=(0,),
            answer=str(text == SAID),
            caption=Caption(text=text, truth=SAID),
        )
        for text in (SAID, FALSE)
    ]


def candidates(maker: RowMaker) -> list[Row]:
    return [maker.row(freeret(SAID, IMAGE), images=(at,), answer="A") for at in range(3)]


def pairs(maker: RowMaker) -> list[Row]:
    return [
        maker.row(indexmllm(), images=(2, at), answer="1", likeness=[1] * 25) for at in range(2)
    ]


def glances(maker: RowMaker) -> list[Row]:
    return [maker.glance(indexmllm(), images=(2, at), likeness=[at] * 25) for at in range(2)]


@pytest.mark.parametrize("rows_of", [captions, candidates, pairs, glances])
@torch.no_grad()
def test_a_packed_row_gives_the_states_of_its_prompts_alone(
    rows_of: Callable[[RowMaker], list[Row]],
    pool: Pool,
    maker: RowMaker,
    model: Qwen2_5_VLForConditionalGeneration,
) -> None:
    rows = rows_of(maker)
    images = pool.images[0]

    together = collate([packed(rows, maker.image_token)], images, maker)
    apart = collate(rows, images, maker)

    assert together.ids.shape[1] < sum(len(row.ids) for row in rows)
    for field in ("answers", "fits"):
        first, second = (getattr(batch, field) != IGNORED for batch in (together, apart))
        assert torch.equal(getattr(together, field)[first], getattr(apart, field)[second])
        torch.testing.assert_close(
            hidden_states(model, together)[first],
            hidden_states(model, apart)[second],
            atol=1e-5,
            rtol=1e-5,
        )


def test_a_glance_ends_with_its_last_image_and_asks_nothing(maker: RowMaker) -> None:
    row = maker.glance(freeret(SAID, IMAGE), images=(0,), likeness=[1] * 25)

    assert row.ids[-25:] == [maker.image_token] * 25
    assert row.fits[-25:] == [1] * 25
    assert {*row.answers, *row.words, *row.fits[:-25]} == {IGNORED}


def test_most_things_of_an_image_are_shown_by_some_visual_token(pool: Pool) -> None:
    for group, (scene, near) in enumerate(pool.scenes):
        for member, shown in enumerate((scene, scene, near)):
            owners = set(pool.owners[group, member].tolist()) - {NOTHING}
            assert owners == set(range(len(shown.things)))


def test_each_thing_of_an_image_is_labelled_with_what_it_shares_with_a_wanted_scene() -> None:
    shown = Shown(place=0, scene=SCENE, owners=OWNERS)
    other = Scene(
        direction=Axis.ROW, things=(CIRCLE, Thing(size="large", colour="red", shape="square"))
    )
    turned = Scene(direction=Axis.COLUMN, things=SCENE.things)

    def levels(wanted: Scene) -> list[int]:
        return [level for level in shown.likeness(wanted) if level != IGNORED]

    everything = Likeness(sum(Likeness))
    assert levels(SCENE) == [everything, everything]
    assert levels(turned) == [everything & ~Likeness.PLACE] * 2
    assert levels(other) == [everything, Likeness.SHAPE]
