"""Drawing scenes: a scene and a seed give one small RGB image, always the same bytes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from random import Random

from PIL import Image, ImageChops, ImageDraw

from nightshift.demo.scenes import Axis, Scene, Thing

IMAGE_SIZE = 80
"""Side of an image, in pixels."""

_SCALE = 3  # drawn this much larger, then averaged down: smooth edges
_RADII = {"small": (6.0, 7.0), "large": (10.5, 12.5)}
_GAP = (3.0, 9.0)
_ASKEW = 3.0
_MARGIN = 1.5
_FAR, _NEAR = 0.82, 1.14
_FURTHEST = 0.7
_PALETTE = {
    "red": (214, 36, 40),
    "yellow": (246, 224, 40),
    "green": (36, 156, 60),
    "blue": (34, 78, 214),
    "white": (246, 246, 246),
    "black": (22, 22, 24),
}

_Point = tuple[float, float]
_Colour = tuple[int, int, int]


class Rendering(StrEnum):
    """Ways to draw a scene that keep its things and relations."""

    PLAIN = "plain"
    RESCALED = "rescaled"
    RELIT = "relit"
    CLUTTERED = "cluttered"
    HIDDEN = "hidden"
    CANDID = "candid"
    """From a step away, relit, cluttered, and with two things partly hidden, all at once."""
    HARSH = "harsh"
    """Candid, and worse: smaller still, twice the clutter, a stronger light."""


TRAINED = tuple(entry for entry in Rendering if entry not in (Rendering.CANDID, Rendering.HARSH))
"""What the models learn from; a candid image combines what they met one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Where a thing was drawn, in pixels."""

    thing: Thing
    centre: _Point
    radius: float


def render(scene: Scene, rng: Random, rendering: Rendering = Rendering.PLAIN) -> Image.Image:
    """Draw a scene on a random background, at a random place.

    Returns:
        An RGB image of `IMAGE_SIZE` × `IMAGE_SIZE` pixels.
    """
    image, _ = render_placed(scene, rng, rendering)
    return image


def render_placed(
    scene: Scene, rng: Random, rendering: Rendering
) -> tuple[Image.Image, list[Placed]]:
    """As `render`, and where the scene's things came to stand, in their order."""
    zoom = 1.0
    if rendering is Rendering.RESCALED:
        zoom = rng.choice((_FAR, _NEAR))
    elif rendering is Rendering.CANDID:
        zoom = _FAR
    elif rendering is Rendering.HARSH:
        zoom = _FURTHEST
    canvas = _background(rng)
    draw = ImageDraw.Draw(canvas)
    if rendering in (Rendering.CLUTTERED, Rendering.CANDID):
        _scatter(draw, rng)
    elif rendering is Rendering.HARSH:
        _scatter(draw, rng)
        _scatter(draw, rng)
    placed = _place(scene, rng, zoom)
    for place in placed:
        _draw_thing(draw, place, rng)
    n_hidden = {Rendering.HIDDEN: 1, Rendering.CANDID: 2, Rendering.HARSH: 2}.get(rendering, 0)
    for place in rng.sample(placed, n_hidden):
        _hide_a_part(draw, place, rng)
    image = canvas.reduce(_SCALE)
    if rendering in (Rendering.RELIT, Rendering.CANDID):
        image = _relight(image, rng)
    elif rendering is Rendering.HARSH:
        image = _relight(image, rng, warmth=(0.1, 0.18), level=(0.6, 0.78))
    return image, placed


def _place(scene: Scene, rng: Random, zoom: float) -> list[Placed]:
    """The things side by side, the whole group moved to a random place on the canvas."""
    radii = [rng.uniform(*_RADII[thing.size]) * zoom for thing in scene.things]
    along = [0.0]
    for entry, two in pairwise(radii):
        along.append(along[-1] + (entry + two) * 1.05 + rng.uniform(*_GAP) * zoom)
    room = IMAGE_SIZE - 2 * _MARGIN
    fit = min(1.0, room / (radii[0] + along[-1] + radii[-1]))
    radii = [radius * fit for radius in radii]
    spots = [(at * fit, rng.uniform(-_ASKEW, _ASKEW)) for at in along]
    if scene.direction is Axis.COLUMN:
        spots = [(across, at) for at, across in spots]
    shift = []
    for axis in (0, 1):
        least = min(spot[axis] - radius for spot, radius in zip(spots, radii, strict=True))
        peak = max(spot[axis] + radius for spot, radius in zip(spots, radii, strict=True))
        shift.append(rng.uniform(_MARGIN - least, IMAGE_SIZE - _MARGIN - peak))
    return [
        Placed(thing=thing, centre=(x + shift[0], y + shift[1]), radius=radius)
        for thing, (x, y), radius in zip(scene.things, spots, radii, strict=True)
    ]


def _draw_thing(draw: ImageDraw.ImageDraw, placed: Placed, rng: Random) -> None:
    thing, centre, radius = placed.thing, placed.centre, placed.radius
    fill = _jitter(_PALETTE[thing.colour], rng, 10)
    edge = (200, 200, 200) if thing.colour == "black" else (30, 30, 30)
    x, y, r = centre[0] * _SCALE, centre[1] * _SCALE, radius * _SCALE
    if thing.shape == "circle":
        draw.ellipse((x - r, y - r, x + r, y + r), fill=fill, outline=edge, width=_SCALE)
    else:
        outline = [(x + r * px, y + r * py) for px, py in _OUTLINES[thing.shape]]
        draw.polygon(outline, fill=fill, outline=edge, width=_SCALE)


def _star() -> list[_Point]:
    points = []
    for index in range(10):
        reach = 1.12 if index % 2 == 0 else 0.46
        angle = math.pi * (index / 5 - 0.5)
        points.append((reach * math.cos(angle), reach * math.sin(angle)))
    return points


_ARM = 0.36
_OUTLINES: dict[str, list[_Point]] = {
    "square": [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
    "triangle": [(0.0, -1.0), (1.0, 0.85), (-1.0, 0.85)],
    "star": _star(),
    "cross": [
        *[(-_ARM, -1.0), (_ARM, -1.0), (_ARM, -_ARM), (1.0, -_ARM), (1.0, _ARM), (_ARM, _ARM)],
        *[(_ARM, 1.0), (-_ARM, 1.0), (-_ARM, _ARM), (-1.0, _ARM), (-1.0, -_ARM), (-_ARM, -_ARM)],
    ],
}


def _background(rng: Random) -> Image.Image:
    side = IMAGE_SIZE * _SCALE
    first, second = _muted(rng), _muted(rng)
    painter: Callable[[int, _Colour, _Colour, Random], Image.Image] = rng.choice(
        (_flat, _gradient, _stripes, _checks)
    )
    return painter(side, first, second, rng)


def _flat(side: int, first: _Colour, _second: _Colour, _rng: Random) -> Image.Image:
    return Image.new("RGB", (side, side), first)


def _gradient(side: int, first: _Colour, second: _Colour, rng: Random) -> Image.Image:
    ramp = Image.linear_gradient("L").resize((side, side))
    if rng.random() < 0.5:
        ramp = ramp.transpose(Image.Transpose.ROTATE_90)
    plain = Image.new("RGB", (side, side), first)
    return Image.composite(Image.new("RGB", (side, side), second), plain, ramp)


def _stripes(side: int, first: _Colour, second: _Colour, rng: Random) -> Image.Image:
    image = Image.new("RGB", (side, side), first)
    draw = ImageDraw.Draw(image)
    step = rng.randint(8, 20) * _SCALE
    upright = rng.random() < 0.5
    faint = _blend(first, second, 0.35)
    for start in range(0, side, step):
        stop = start + step // 2
        draw.rectangle((start, 0, stop, side) if upright else (0, start, side, stop), fill=faint)
    return image


def _checks(side: int, first: _Colour, second: _Colour, rng: Random) -> Image.Image:
    image = Image.new("RGB", (side, side), first)
    draw = ImageDraw.Draw(image)
    step = rng.randint(8, 16) * _SCALE
    faint = _blend(first, second, 0.35)
    for row, top in enumerate(range(0, side, step)):
        for left in range(step * (row % 2), side, 2 * step):
            draw.rectangle((left, top, left + step - 1, top + step - 1), fill=faint)
    return image


def _scatter(draw: ImageDraw.ImageDraw, rng: Random) -> None:
    """Thin grey strokes: clutter that is no thing of the vocabulary."""
    for _ in range(rng.randint(6, 12)):
        x, y = rng.uniform(0, IMAGE_SIZE), rng.uniform(0, IMAGE_SIZE)
        angle, length = rng.uniform(0, math.pi), rng.uniform(5, 16)
        end = (x + length * math.cos(angle), y + length * math.sin(angle))
        shade = rng.randint(60, 200)
        draw.line(
            (x * _SCALE, y * _SCALE, end[0] * _SCALE, end[1] * _SCALE),
            fill=(shade, shade, shade),
            width=round(_SCALE * rng.uniform(0.8, 1.6)),
        )


def _hide_a_part(draw: ImageDraw.ImageDraw, placed: Placed, rng: Random) -> None:
    """A grey bar over the outer third of one thing."""
    (x, y), radius = placed.centre, placed.radius
    shade = rng.randint(90, 160)
    depth = radius * rng.uniform(0.5, 0.7)
    reach = radius * 1.2
    box = rng.choice(
        (
            (x - reach, y - reach, x - reach + depth, y + reach),
            (x + reach - depth, y - reach, x + reach, y + reach),
            (x - reach, y - reach, x + reach, y - reach + depth),
            (x - reach, y + reach - depth, x + reach, y + reach),
        )
    )
    draw.rectangle(tuple(edge * _SCALE for edge in box), fill=(shade, shade, shade))


def _relight(
    image: Image.Image,
    rng: Random,
    warmth: tuple[float, float] = (0.05, 0.12),
    level: tuple[float, float] = (0.72, 0.9),
) -> Image.Image:
    """Multiply by a warm, cool or dim light."""
    tint = rng.choice((-1, 1)) * rng.uniform(*warmth)
    grey = rng.uniform(*level)
    light = tuple(round(255 * min(1.0, grey * (1 + k * tint))) for k in (1, 0, -1))
    return ImageChops.multiply(image, Image.new("RGB", image.size, light))


def _muted(rng: Random) -> _Colour:
    level = rng.randint(95, 185)
    return _jitter((level, level, level), rng, 14)


def _jitter(colour: _Colour, rng: Random, spread: int) -> _Colour:
    red, green, blue = (min(255, max(0, c + rng.randint(-spread, spread))) for c in colour)
    return red, green, blue


def _blend(first: _Colour, second: _Colour, share: float) -> _Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue
