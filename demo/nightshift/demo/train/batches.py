"""Training batches of the scorer: which questions about which pictures."""

from __future__ import annotations

from random import Random

from nightshift.demo.train.network import Batch, collate
from nightshift.demo.train.pool import Pool
from nightshift.demo.train.rows import (
    Row,
    RowMaker,
    caption_row,
    choice_row,
    matching_row,
    pair_row,
)

_PICTURES = 16
_CAPTIONS = 4
_CAPTIONED = 4

_Key = tuple[int, int]


class BatchMaker:
    """Draws batches from a pool of pictures; each is a pure function of the random state."""

    def __init__(self, maker: RowMaker, pool: Pool) -> None:
        self._maker = maker
        self._pool = pool

    def matching(self, rng: Random) -> Batch:
        """RetLLM's question about a true and a false caption of each picture."""
        keys = [self._any_picture(rng) for _ in range(2 * _PICTURES)]
        rows = [
            matching_row(self._maker, self._pool.scene(*key), place, rng)
            for place, key in enumerate(keys)
        ]
        return self._collated(rows, keys)

    def choosing(self, rng: Random) -> Batch:
        """FreeRet's question about text and picture, and a few plain captions."""
        keys = [self._any_picture(rng) for _ in range(_PICTURES)]
        rows = [
            choice_row(self._maker, self._pool.scene(*key), place, rng)
            for place, key in enumerate(keys)
            for _ in range(_CAPTIONS - 1)
        ]
        rows += [
            caption_row(self._maker, self._pool.scene(*key), place, rng)
            for place, key in enumerate(keys[:_CAPTIONED])
        ]
        return self._collated(rows, keys)

    def comparing(self, rng: Random) -> Batch:
        """Questions about two pictures: the same scene drawn anew, or a near neighbour."""
        keys: list[_Key] = []
        rows = []
        for _ in range(_PICTURES * 2 // 3):
            group, place = rng.randrange(len(self._pool.scenes)), len(keys)
            keys += [(group, member) for member in range(3)]
            for pair in ((0, 1), (rng.choice((0, 1)), 2)):
                one, two = rng.sample(pair, 2)
                places = (place + one, place + two)
                rows.append(pair_row(self._maker, places, same=2 not in pair, rng=rng))
        return self._collated(rows, keys)

    def everything(self, rng: Random) -> Batch:
        """One of the kinds above, the True/False question most often."""
        kinds = (self.matching, self.choosing, self.comparing)
        return rng.choices(kinds, weights=(4, 3, 3))[0](rng)

    def _any_picture(self, rng: Random) -> _Key:
        return rng.randrange(len(self._pool.scenes)), rng.randrange(3)

    def _collated(self, rows: list[Row], keys: list[_Key]) -> Batch:
        groups, members = zip(*keys, strict=True)
        images = self._pool.images[list(groups), list(members)]
        return collate(rows, images, self._maker)
