"""Training batches of the scorer: which questions about which pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from nightshift.demo.train.network import Batch, collate
from nightshift.demo.train.pool import Pool
from nightshift.demo.train.questions import (
    Shown,
    caption_row,
    choice_row,
    matching_row,
    pair_row,
    query_first_row,
)
from nightshift.demo.train.rows import Row, RowMaker

_PICTURES = 32
_GROUPS = 12
_CAPTIONED = 4
_WEIGHTS = {"matching": 3, "choosing": 4, "looking": 2, "comparing": 1}
_CAPTION_WEIGHTS = {"matching": 4, "choosing": 1}

_Key = tuple[int, int]


class BatchMaker:
    """Draws batches from a pool of pictures; each is a pure function of the random state."""

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
        """RetLLM's question about a true and a false caption of each picture."""
        keys = [self._any_picture(rng) for _ in range(_PICTURES)]
        rows = [
            matching_row(self._maker, self._pool.scene(*key), place, rng)
            for place, key in enumerate(keys)
        ]
        return self._collated(rows, keys)

    def choosing(self, rng: Random) -> Batch:
        """FreeRet's question about a picture and two captions, and a few plain captions."""
        keys = [self._any_picture(rng) for _ in range(_PICTURES)]
        rows = [
            choice_row(self._maker, self._pool.scene(*key), place, rng)
            for place, key in enumerate(keys[_CAPTIONED:], _CAPTIONED)
        ]
        rows += [
            caption_row(self._maker, self._pool.scene(*key), place, rng)
            for place, key in enumerate(keys[:_CAPTIONED])
        ]
        return self._collated(rows, keys)

    def looking(self, rng: Random) -> Batch:
        """FreeRet's question about a caption and two pictures, its own and a near neighbour."""
        rows, keys = [], []
        for place in range(0, 2 * _GROUPS, 2):
            group = rng.randrange(len(self._pool.scenes))
            pair = [(group, rng.randrange(2)), (group, 2)]
            shown = [self._shown(key, place + at) for at, key in enumerate(pair)]
            wanted = self._pool.scene(*rng.choice(pair))
            rows.append(query_first_row(self._maker, wanted, shown, rng))
            keys += pair
        return self._collated(rows, keys)

    def comparing(self, rng: Random) -> Batch:
        """Questions about a picture and two others: its scene drawn anew, a near neighbour."""
        rows, keys = [], []
        for place in range(0, 3 * _GROUPS, 3):
            group = rng.randrange(len(self._pool.scenes))
            trio = [(group, member) for member in (*rng.sample(range(2), 2), 2)]
            query, *shown = [self._shown(key, place + at) for at, key in enumerate(trio)]
            rows.append(pair_row(self._maker, query, shown, rng))
            keys += trio
        return self._collated(rows, keys)

    def everything(self, rng: Random) -> Batch:
        """One of the kinds above, those that are learnt in the time most often."""
        return self._any_kind(_WEIGHTS, rng)

    def captions(self, rng: Random) -> Batch:
        """One of the kinds that ask about a picture and captions."""
        return self._any_kind(_CAPTION_WEIGHTS, rng)

    def _any_kind(self, weights: Mapping[str, int], rng: Random) -> Batch:
        (kind,) = rng.choices(list(weights), weights=list(weights.values()))
        return self.kinds[kind](rng)

    def _any_picture(self, rng: Random) -> _Key:
        return rng.randrange(len(self._pool.scenes)), rng.randrange(3)

    def _shown(self, key: _Key, place: int) -> Shown:
        return Shown(place=place, scene=self._pool.scene(*key), owners=self._pool.owners[key])

    def _collated(self, rows: list[Row], keys: list[_Key]) -> Batch:
        groups, members = zip(*keys, strict=True)
        images = self._pool.images[list(groups), list(members)]
        return collate(rows, images, self._maker)
