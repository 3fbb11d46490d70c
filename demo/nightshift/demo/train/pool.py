"""Training pictures, drawn once: each scene twice, beside one of its near neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from nightshift.demo.render import IMAGE_SIZE, Rendering, render
from nightshift.demo.scenes import Scene, Split, neighbours, random_scene

_PLAIN_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Groups of three pictures: a scene, the same scene drawn anew, a near neighbour.

    `images` is `[groups, 3, height, width, 3]`, uint8.
    """

    scenes: list[tuple[Scene, Scene]]
    images: NDArray[np.uint8]

    def scene(self, group: int, member: int) -> Scene:
        """The scene that a picture shows."""
        return self.scenes[group][member == 2]


def draw_pool(seed: int, split: Split, groups: int) -> Pool:
    """Draw the pictures of one split; a pure function of its arguments."""
    rng = Random(f"{seed}:{split}:pool")
    scenes = []
    images = np.empty((groups, 3, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    for group in range(groups):
        scene = random_scene(rng, split)
        near = rng.choice(neighbours(scene))
        scenes.append((scene, near))
        for member, shown in enumerate((scene, scene, near)):
            images[group, member] = np.asarray(render(shown, rng, _any_rendering(rng)))
    return Pool(scenes=scenes, images=images)


def _any_rendering(rng: Random) -> Rendering:
    if rng.random() < _PLAIN_SHARE:
        return Rendering.PLAIN
    return rng.choice(tuple(Rendering)[1:])
