"""Training images, drawn once: each scene twice, beside one of its near neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from nightshift.demo.render import IMAGE_SIZE, TRAINED, Placed, Rendering, render_placed
from nightshift.demo.scenes import Scene, Split, neighbours, random_scene

SIDE = 5
"""Visual tokens along one side of an image."""

NOTHING = -1
"""Stands in `Pool.owners` where a visual token shows background."""

_PLAIN_SHARE = 0.5
_CELL = IMAGE_SIZE / SIDE


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Groups of three images: a scene, the same scene drawn again, a near neighbour.

    `images` is `[groups, 3, height, width, 3]`, uint8; `owners` `[groups, 3, 25]`, int8, says
    which of its scene's things a visual token shows.
    """

    scenes: list[tuple[Scene, Scene]]
    images: NDArray[np.uint8]
    owners: NDArray[np.int8]

    def scene(self, group: int, member: int) -> Scene:
        """The scene that an image shows."""
        return self.scenes[group][member == 2]


def draw_pool(seed: int, split: Split, groups: int) -> Pool:
    """Draw the images of one split; a pure function of its arguments."""
    rng = Random(f"{seed}:{split}:pool")
    scenes = []
    images = np.empty((groups, 3, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    owners = np.empty((groups, 3, SIDE**2), dtype=np.int8)
    for group in range(groups):
        scene = random_scene(rng, split)
        near = rng.choice(neighbours(scene))
        scenes.append((scene, near))
        for member, shown in enumerate((scene, scene, near)):
            image, placed = render_placed(shown, rng, _any_rendering(rng))
            images[group, member] = np.asarray(image)
            owners[group, member] = _owners(placed)
    return Pool(scenes=scenes, images=images, owners=owners)


def _any_rendering(rng: Random) -> Rendering:
    if rng.random() < _PLAIN_SHARE:
        return Rendering.PLAIN
    return rng.choice(TRAINED[1:])


def _owners(placed: list[Placed]) -> NDArray[np.int8]:
    """The thing `[25]` that reaches furthest into each visual token's cell, if by half of it."""
    low = np.indices((SIDE, SIDE)).reshape(2, -1) * _CELL
    depths = []
    for place in placed:
        x, y = place.centre
        outside = [
            np.maximum(np.maximum(edge - at, at - edge - _CELL), 0)
            for at, edge in ((y, low[0]), (x, low[1]))
        ]
        depths.append(place.radius / 2 - np.hypot(*outside))
    deepest = np.stack(depths)
    return np.where(deepest.max(0) > 0, deepest.argmax(0), NOTHING).astype(np.int8)
