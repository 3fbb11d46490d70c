"""Drawing with Pillow in logical units: text with bold and ellipsis, smooth shapes, thumbnails."""

from functools import lru_cache
from typing import Literal

from PIL import Image, ImageDraw, ImageFont, ImageOps

from nightshift.schema.display import visible

__all__ = ["Pen", "fit", "text_width"]

#: Pixels of the finished picture to one unit, and drawn for each of them before averaging down.
_PIXELS, _SMOOTH = 2, 2
_SCALE = _PIXELS * _SMOOTH

#: What the font inside Pillow draws beside ASCII.
_OWN_SIGNS = frozenset("…·±")
#: For other scripts, where the system has one of them.
_SYSTEM_FONTS = ("NotoSansCJK-Regular.ttc", "NotoSans-Regular.ttf", "DejaVuSans.ttf", "Arial.ttf")

Align = Literal["left", "right", "middle"]
_ANCHORS = {"left": "ls", "right": "rs", "middle": "ms"}


class Pen:
    """A canvas of `width` × `height` units; the finished picture has twice as many pixels.

    Args:
        width: Units.
        height: Units.
        paper: Colour of the ground.
    """

    def __init__(self, width: int, height: int, paper: str) -> None:
        self._image = Image.new("RGB", (width * _SCALE, height * _SCALE), paper)
        self._draw = ImageDraw.Draw(self._image)

    def text(
        self,
        x: float,
        baseline: float,
        words: str,
        *,
        size: float = 13,
        colour: str = "#16191d",
        bold: bool = False,
        align: Align = "left",
    ) -> float:
        """Write one line.

        Returns:
            The x where it ends.
        """
        font = _font(size, words)
        self._draw.text(
            (x * _SCALE, baseline * _SCALE),
            _drawable(words, font),
            font=font,
            fill=colour,
            anchor=_ANCHORS[align],
            # The font inside Pillow has one weight; a thin outline stands in for bold.
            stroke_width=0.022 * size * _SCALE if bold else 0,
        )
        return x + text_width(words, size)

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        radius: float = 0,
        fill: str | None = None,
        line: str | None = None,
    ) -> None:
        """A rectangle with rounded corners."""
        self._draw.rounded_rectangle(
            [value * _SCALE for value in (x, y, x + width, y + height)],
            radius=radius * _SCALE,
            fill=fill,
            outline=line,
            width=_SCALE,
        )

    def curve(
        self, start: tuple[float, float], end: tuple[float, float], *, colour: str, width: float
    ) -> None:
        """A line that leaves and arrives horizontally."""
        (x0, y0), (x1, y1) = start, end
        steps = [step / 48 for step in range(49)]
        points = [
            # A cubic Bézier whose control points lie half-way, at the heights of the ends.
            (
                _SCALE * (x0 + (x1 - x0) * (1.5 * t - 1.5 * t**2 + t**3)),
                _SCALE * (y0 + (y1 - y0) * (3 * t**2 - 2 * t**3)),
            )
            for t in steps
        ]
        self._draw.line(points, fill=colour, width=round(width * _SCALE), joint="curve")

    def arrow(self, x: float, baseline: float, *, up: bool, colour: str) -> None:
        """A small triangle."""
        tip, foot = (baseline - 7, baseline - 0.5) if up else (baseline - 0.5, baseline - 7)
        points = [(x, foot), (x + 7, foot), (x + 3.5, tip)]
        self._draw.polygon([(px * _SCALE, py * _SCALE) for px, py in points], fill=colour)

    def picture(self, x: float, y: float, side: float, image: Image.Image) -> None:
        """A square thumbnail with rounded corners, cut from the middle of an image."""
        pixels = round(side * _SCALE)
        square = ImageOps.fit(image, (pixels, pixels), Image.Resampling.BICUBIC)
        mask = Image.new("L", square.size, 0)
        ImageDraw.Draw(mask).rounded_rectangle(
            (0, 0, pixels - 1, pixels - 1), radius=6 * _SCALE, fill=255
        )
        self._image.paste(square, (round(x * _SCALE), round(y * _SCALE)), mask)

    def finish(self) -> Image.Image:
        """The picture, RGB, averaged down so that edges are smooth."""
        return self._image.reduce(_SMOOTH)


def text_width(words: str, size: float) -> float:
    """Of one line, in units."""
    font = _font(size, words)
    return font.getlength(_drawable(words, font)) / _SCALE


def fit(words: str, size: float, width: float, lines: int = 1) -> list[str]:
    """Break a text into at most `lines` lines of at most `width` units; the last may be cut."""
    done: list[str] = []
    rest = visible(words)
    while rest and len(done) < lines:
        last = len(done) == lines - 1
        line = _cut(rest, size, width) if last else _break(rest, size, width)
        done.append(line)
        rest = "" if last else rest[len(line) :].lstrip()
    return done


def _break(words: str, size: float, width: float) -> str:
    """As many whole words as fit, and at least one sign."""
    n_signs = _longest(words, size, width)
    if n_signs == len(words) or words[n_signs] == " ":
        return words[:n_signs].rstrip()
    whole = words[:n_signs].rpartition(" ")[0]
    return whole or words[: max(n_signs, 1)]


def _cut(words: str, size: float, width: float) -> str:
    if text_width(words, size) <= width:
        return words
    return words[: _longest(words, size, width - text_width("…", size))].rstrip() + "…"


def _longest(words: str, size: float, width: float) -> int:
    """The number of leading signs that fit."""
    low, high = 0, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (
            (middle, high) if text_width(words[:middle], size) <= width else (low, middle - 1)
        )
    return low


def _font(size: float, words: str) -> ImageFont.FreeTypeFont:
    return _load(size, own=all(_is_own(sign) for sign in words))


@lru_cache(maxsize=64)
def _load(size: float, *, own: bool) -> ImageFont.FreeTypeFont:
    for name in () if own else _SYSTEM_FONTS:
        try:
            return ImageFont.truetype(name, size * _SCALE)
        except OSError:
            continue
    font = ImageFont.load_default(size * _SCALE)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _drawable(words: str, font: ImageFont.FreeTypeFont) -> str:
    if font.getname()[0] != "Aileron":
        return words
    return "".join(sign if _is_own(sign) else "?" for sign in words)


def _is_own(sign: str) -> bool:
    return sign.isascii() or sign in _OWN_SIGNS
