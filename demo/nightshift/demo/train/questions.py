"""Questions of the scorer's training: the methods' own, with their true answers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from random import Random

import numpy as np
from numpy.typing import NDArray

from nightshift.demo import prompts
from nightshift.demo.prompts import IMAGE
from nightshift.demo.scenes import (
    Scene,
    Thing,
    describe,
    neighbours,
    random_scene,
    recounted,
    substitutes,
)
from nightshift.demo.train.pool import NOTHING
from nightshift.demo.train.rows import IGNORED, Caption, Likeness, Row, RowMaker, packed

_EASY_SHARE = 0.05
_RECOUNTED_SHARE = 0.15
_SUBSTITUTED_SHARE = 0.35
_CAPTIONS_OF_A_KIND = 2

_PAIR_QUESTIONS = (
    (prompts.indexmllm(), "1", "0"),
    (prompts.freeret(IMAGE, IMAGE), "A", "B"),
    (prompts.retllm_pair(), "True", "False"),
)
_PAIR_WEIGHTS = (3, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """An image among those of a batch: its place, its scene, and `Pool.owners` of it `[25]`."""

    place: int
    scene: Scene
    owners: NDArray[np.int8]

    def likeness(self, wanted: Scene) -> list[int]:
        """At each visual token, what the thing there has in common with a wanted scene."""
        same_axis = self.scene.direction is wanted.direction
        of_thing = [
            _likeness(entry, wanted.things, in_place=same_axis and entry == other)
            for entry, other in zip_longest(self.scene.things, wanted.things)
            if entry
        ]
        return [IGNORED if owner == NOTHING else of_thing[owner] for owner in self.owners.tolist()]


def false_caption(scene: Scene, rng: Random) -> str:
    """A caption that does not fit a scene, most often by one detail."""
    return _caption(scene, rng, fits=False).text


def matching_row(maker: RowMaker, scene: Scene, image: int, rng: Random) -> Row:
    """RetLLM's question about true captions, learnt as words too, and about false ones."""
    rows = []
    for fits in (True, False) * _CAPTIONS_OF_A_KIND:
        caption = _caption(scene, rng, fits=fits)
        prompt = prompts.retllm(caption.text)
        rows.append(maker.row(prompt, images=(image,), answer=str(fits), caption=caption))
    return packed(rows, maker.image_token)


def choice_row(maker: RowMaker, scene: Scene, image: int, rng: Random) -> Row:
    """FreeRet's choice about an image, as the query or as the candidate, and two captions."""
    ask = rng.choice((prompts.freeret, prompts.freeret_candidate_first))
    rows = []
    for fits in (True, False):
        caption = _caption(scene, rng, fits=fits)
        prompt = ask(IMAGE, caption.text)
        answer = "A" if fits else "B"
        rows.append(maker.row(prompt, images=(image,), answer=answer, caption=caption))
    return packed(rows, maker.image_token)


def query_first_row(maker: RowMaker, wanted: Scene, shown: list[Shown], rng: Random) -> Row:
    """FreeRet's choice about a text query and several images."""
    prompt = prompts.freeret(describe(wanted, rng), IMAGE)
    rows = [
        maker.row(
            prompt,
            images=(item.place,),
            answer="A" if item.scene == wanted else "B",
            likeness=item.likeness(wanted),
        )
        for item in shown
    ]
    return packed(rows, maker.image_token)


def caption_row(maker: RowMaker, scene: Scene, image: int, rng: Random) -> Row:
    """A row that answers with a whole caption."""
    return maker.row(prompts.describe_image(), images=(image,), answer=describe(scene, rng))


def pair_row(maker: RowMaker, query: Shown, shown: list[Shown], rng: Random) -> Row:
    """An image and several others: IndexMLLM's digits, FreeRet's letters or RetLLM's words."""
    prompt, same, differs = rng.choices(_PAIR_QUESTIONS, weights=_PAIR_WEIGHTS)[0]
    rows = [
        maker.row(
            prompt,
            images=(query.place, item.place),
            answer=same if item.scene == query.scene else differs,
            likeness=item.likeness(query.scene),
        )
        for item in shown
    ]
    return packed(rows, maker.image_token)


def image_glance_row(maker: RowMaker, query: Shown, shown: list[Shown], rng: Random) -> Row:
    """An image and several others, up to where the question would come."""
    prompt, *_ = rng.choices(_PAIR_QUESTIONS, weights=_PAIR_WEIGHTS)[0]
    return packed(
        [
            maker.glance(
                prompt, images=(query.place, item.place), likeness=item.likeness(query.scene)
            )
            for item in shown
        ],
        maker.image_token,
    )


def text_glance_row(maker: RowMaker, wanted: Scene, shown: list[Shown], rng: Random) -> Row:
    """A caption and several images, up to where the question would come."""
    prompt = prompts.freeret(describe(wanted, rng), IMAGE)
    return packed(
        [
            maker.glance(prompt, images=(item.place,), likeness=item.likeness(wanted))
            for item in shown
        ],
        maker.image_token,
    )


def _likeness(thing: Thing, wanted: tuple[Thing, ...], *, in_place: bool) -> int:
    kinds = {(entry.colour, entry.shape) for entry in wanted}
    results = {
        Likeness.COLOUR: any(entry.colour == thing.colour for entry in wanted),
        Likeness.SHAPE: any(entry.shape == thing.shape for entry in wanted),
        Likeness.COLOURED_SHAPE: (thing.colour, thing.shape) in kinds,
        Likeness.THING: thing in wanted,
        Likeness.PLACE: in_place,
    }
    return sum(flag for flag, has in results.items() if has)


def _caption(scene: Scene, rng: Random, *, fits: bool) -> Caption:
    manner = rng.random()
    truth = describe(scene, Random(manner))
    if fits:
        return Caption(text=truth, truth=truth)
    other = _false_scene(scene, rng)
    return Caption(text=describe(other, Random(manner)), truth=truth)


def _false_scene(scene: Scene, rng: Random) -> Scene:
    edits: list[Scene] = []
    draw = rng.random()
    if draw < _EASY_SHARE:
        edits = [random_scene(rng, scene.split)]
    elif draw < _EASY_SHARE + _RECOUNTED_SHARE:
        edits = recounted(scene)
    elif draw < _EASY_SHARE + _RECOUNTED_SHARE + _SUBSTITUTED_SHARE:
        edits = substitutes(scene)
    other = rng.choice(edits or neighbours(scene))
    return other if other != scene else _false_scene(scene, rng)
