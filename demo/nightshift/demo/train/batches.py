"""Training batches of the scorer: which questions about which images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from nightshift.demo.train.network import Batch, collate
from nightshift.demo.train.pool import Pool
from nightshift.demo.train.questions import (
    Shown,
    caption_row,
    choice_row,
    image_glance_row,
    matching_row,
    pair_row,
    query_first_row,
    text_glance_row,
)
from nightshift.demo.train.rows import Row, RowMaker

_IMAGES = 32
_GROUPS = 12
_CAPTIONED = 4
_WEIGHTS = {"matching": 3, "choosing": 4, "looking": 2, "comparing": 1}
_CAPTION_WEIGHTS = {"matching": 4, "choosing": 1}
_IMAGE_WEIGHTS = {"matching": 2, "choosing": 1, "looking": 3, "comparing": 3, "glancing": 3}
_REHEARSAL_WEIGHTS = {"matching": 5, "choosing": 1, "looking": 2, "comparing": 2, "glancing": 1}
_GLANCED_GROUPS = 10
_GLANCED_AT = 5  # images of other scenes, beside a scene's own and its neighbour's
_NEAR_SHARE = 0.6

_Key = tuple[int, int]


class BatchMaker:
    """Draws batches from a pool of images; each is a pure function of the random state."""

    def __init__(self, maker: RowMaker, pool: Pool) -> None:
        self._maker = maker
        self._pool = pool
        self.kinds: Mapping[str, Callable[[Random], Batch]] = {
            "matching": self.matching,
            "choosing": self.choosing,
            "looking": self.looking,
            "comparing": self.comparing,
        }

    def matching(self, rng: Random) -> Batch:
        """RetLLM's question about a true and a false caption of each image."""
        keys = [self._any_image(rng) for _ in range(_IMAGES)]
        rows = [
            matching_row(self._maker, self._pool.scene(*key), place, rng)
            for place, key in enumerate(keys)
        ]
        return self._collated(rows, keys)

    def choosing(self, rng: Random) -> Batch:
        """FreeRet's question about an image and two captions, and a few plain captions."""
        keys = [self._any_image(rng) for _ in range(_IMAGES)]
        rows = [
            choice_row(self._maker, self._pool.scene(*key), place, rng)
            for place, key in enumerate(keys[_CAPTIONED:], _CAPTIONED)
        ]
        rows += [
            caption_row(self._maker, self._pool.scene(*key), place, rng)
            for place, key in enumerate(keys[:_CAPTIONED])
        ]
        return self._collated(rows, keys)

    def looking(self, rng: Random, *, near_share: float = 1.0) -> Batch:
        """FreeRet's question about a caption and two images, its own and another."""
        rows, keys = [], []
        for place in range(0, 2 * _GROUPS, 2):
            group = rng.randrange(len(self._pool.scenes))
            pair = [(group, rng.randrange(2)), self._another(group, near_share, rng)]
            shown = [self._shown(key, place + at) for at, key in enumerate(pair)]
            wanted = self._pool.scene(*rng.choice(pair))
            rows.append(query_first_row(self._maker, wanted, shown, rng))
            keys += pair
        return self._collated(rows, keys)

    def comparing(self, rng: Random, *, near_share: float = 1.0) -> Batch:
        """Questions about an image and two others: its scene drawn again, and another scene."""
        rows, keys = [], []
        for place in range(0, 3 * _GROUPS, 3):
            group = rng.randrange(len(self._pool.scenes))
            own = [(group, member) for member in rng.sample(range(2), 2)]
            trio = [*own, self._another(group, near_share, rng)]
            query, *shown = [self._shown(key, place + at) for at, key in enumerate(trio)]
            rows.append(pair_row(self._maker, query, shown, rng))
            keys += trio
        return self._collated(rows, keys)

    def glancing(self, rng: Random, *, texts: bool = True) -> Batch:
        """No question: what things of many images have in common with one scene.

        A label is one bit a prompt. From labels alone, questions that show the query first stayed
        at chance for hours; judged thing by thing they are learnt in minutes.

        Args:
            rng: Of the batch.
            texts: Every other scene is described in words, not shown.
        """
        groups = [rng.randrange(len(self._pool.scenes)) for _ in range(_GLANCED_GROUPS)]
        keys = [(group, member) for group in groups for member in range(3)]
        shown = [self._shown(key, place) for place, key in enumerate(keys)]
        rows = []
        for place, item in enumerate(shown):
            own = range(place - place % 3, place - place % 3 + 3)
            others = [other for at, other in enumerate(shown) if at not in own]
            among = [shown[at] for at in own if at != place] + rng.sample(others, _GLANCED_AT)
            rng.shuffle(among)
            if texts and place % 2:
                rows.append(text_glance_row(self._maker, item.scene, among, rng))
            else:
                rows.append(image_glance_row(self._maker, item, among, rng))
        return self._collated(rows, keys)

    def everything(self, rng: Random) -> Batch:
        """One of the kinds above, those that are learnt in the time most often."""
        return self._any_kind(_WEIGHTS, rng)

    def captions(self, rng: Random) -> Batch:
        """One of the kinds that ask about an image and captions."""
        return self._any_kind(_CAPTION_WEIGHTS, rng)

    def image_questions(self, rng: Random) -> Batch:
        """One of all kinds, most often those that show the query first; fewer near neighbours."""
        return self._any_kind(_IMAGE_WEIGHTS, rng, near_share=_NEAR_SHARE)

    def rehearsal(self, rng: Random) -> Batch:
        """As `image_questions`, but most often what was learnt first, lest it be forgotten."""
        return self._any_kind(_REHEARSAL_WEIGHTS, rng, near_share=_NEAR_SHARE)

    def _any_kind(
        self, weights: Mapping[str, int], rng: Random, *, near_share: float = 1.0
    ) -> Batch:
        (kind,) = rng.choices(list(weights), weights=list(weights.values()))
        match kind:
            case "looking":
                return self.looking(rng, near_share=near_share)
            case "comparing":
                return self.comparing(rng, near_share=near_share)
            case "glancing":
                return self.glancing(rng)
            case _:
                return self.kinds[kind](rng)

    def _another(self, group: int, near_share: float, rng: Random) -> _Key:
        """An image of the scene's near neighbour, or of any other scene."""
        if rng.random() < near_share:
            return group, 2
        other = rng.randrange(len(self._pool.scenes) - 1)
        return other + (other >= group), rng.randrange(3)

    def _any_image(self, rng: Random) -> _Key:
        return rng.randrange(len(self._pool.scenes)), rng.randrange(3)

    def _shown(self, key: _Key, place: int) -> Shown:
        return Shown(place=place, scene=self._pool.scene(*key), owners=self._pool.owners[key])

    def _collated(self, rows: list[Row], keys: list[_Key]) -> Batch:
        groups, members = zip(*keys, strict=True)
        images = self._pool.images[list(groups), list(members)]
        return collate(rows, images, self._maker)
