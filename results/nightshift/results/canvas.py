"""A canvas for reports: draws text, smooth shapes and thumbnails with Pillow, in logical units."""

from functools import lru_cache
from typing import Literal

from PIL import Image, ImageDraw, ImageFont, ImageOps

from nightshift.schema.display import visible

__all__ = ["Canvas", "text_width", "wrap_text"]

#: Pixels of the finished image to one unit, and pixels drawn for each of them before averaging.
_PIXELS_PER_UNIT, _OVERSAMPLING = 2, 2
_SCALE = _PIXELS_PER_UNIT * _OVERSAMPLING

#: Characters beyond ASCII that the font inside Pillow has.
_BUILT_IN_CHARS = frozenset("…·±")
#: Fonts for other scripts, tried in this order.
_SYSTEM_FONTS = ("NotoSansCJK-Regular.ttc", "NotoSans-Regular.ttf", "DejaVuSans.ttf", "Arial.ttf")

Align = Literal["left", "right", "middle"]
_ANCHORS = {"left": "ls", "right": "rs", "middle": "ms"}


class Canvas:
    """A drawing area of `width` × `height` units; the finished image has twice as many pixels.

    Args:
        width: Units.
        height: Units.
        background: Colour.
    """

    def __init__(self, width: int, height: int, background: str) -> None:
        self._image = Image.new("RGB", (width * _SCALE, height * _SCALE), background)
        self._draw = ImageDraw.Draw(self._image)

    def text(
        self,
        x: float,
        baseline: float,
        line: str,
        *,
        size: float = 13,
        colour: str = "#16191d",
        bold: bool = False,
        align: Align = "left",
    ) -> float:
        """Write one line of text.

        Returns:
            The x coordinate of its end.
        """
        font = _font(size, line)
        self._draw.text(
            (x * _SCALE, baseline * _SCALE),
            _drawable(line, font),
            font=font,
            fill=colour,
            anchor=_ANCHORS[align],
            # The font inside Pillow has one weight; a thin outline stands in for bold.
            stroke_width=0.022 * size * _SCALE if bold else 0,
        )
        return x + text_width(line, size)

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        radius: float = 0,
        fill: str | None = None,
        outline: str | None = None,
    ) -> None:
        """Draw a rectangle with rounded corners."""
        self._draw.rounded_rectangle(
            [value * _SCALE for value in (x, y, x + width, y + height)],
            radius=radius * _SCALE,
            fill=fill,
            outline=outline,
            width=_SCALE,
        )

    def curve(
        self, start: tuple[float, float], end: tuple[float, float], *, colour: str, width: float
    ) -> None:
        """Draw a line that leaves and arrives horizontally."""
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
        """Draw a small triangle."""
        tip, foot = (baseline - 7, baseline - 0.5) if up else (baseline - 0.5, baseline - 7)
        points = [(x, foot), (x + 7, foot), (x + 3.5, tip)]
        self._draw.polygon([(px * _SCALE, py * _SCALE) for px, py in points], fill=colour)

    def thumbnail(self, x: float, y: float, side: float, image: Image.Image) -> None:
        """Draw the middle of an image as a square with rounded corners."""
        pixels = round(side * _SCALE)
        square = ImageOps.fit(image, (pixels, pixels), Image.Resampling.BICUBIC)
        mask = Image.new("L", square.size, 0)
        ImageDraw.Draw(mask).rounded_rectangle(
            (0, 0, pixels - 1, pixels - 1), radius=6 * _SCALE, fill=255
        )
        self._image.paste(square, (round(x * _SCALE), round(y * _SCALE)), mask)

    def finish(self) -> Image.Image:
        """The RGB image, averaged down so that edges are smooth."""
        return self._image.reduce(_OVERSAMPLING)


def text_width(line: str, size: float) -> float:
    """The width of one line of text, in units."""
    font = _font(size, line)
    return font.getlength(_drawable(line, font)) / _SCALE


def wrap_text(text: str, size: float, width: float, max_lines: int = 1) -> list[str]:
    """Break a text into lines of at most `width` units; the last line may end in an ellipsis."""
    lines: list[str] = []
    rest = visible(text)
    while rest and len(lines) < max_lines:
        is_last = len(lines) == max_lines - 1
        line = _shorten(rest, size, width) if is_last else _first_line(rest, size, width)
        lines.append(line)
        rest = "" if is_last else rest[len(line) :].lstrip()
    return lines


def _first_line(text: str, size: float, width: float) -> str:
    """As many complete words as fit, and at least one character."""
    n_chars = _fitting_chars(text, size, width)
    if n_chars == len(text) or text[n_chars] == " ":
        return text[:n_chars].rstrip()
    complete_words = text[:n_chars].rpartition(" ")[0]
    return complete_words or text[: max(n_chars, 1)]


def _shorten(text: str, size: float, width: float) -> str:
    if text_width(text, size) <= width:
        return text
    return text[: _fitting_chars(text, size, width - text_width("…", size))].rstrip() + "…"


def _fitting_chars(text: str, size: float, width: float) -> int:
    """The number of leading characters that fit."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (
            (middle, high) if text_width(text[:middle], size) <= width else (low, middle - 1)
        )
    return low


def _font(size: float, text: str) -> ImageFont.FreeTypeFont:
    return _load_font(size, built_in=all(_is_built_in(char) for char in text))


@lru_cache(maxsize=64)
def _load_font(size: float, *, built_in: bool) -> ImageFont.FreeTypeFont:
    for name in () if built_in else _SYSTEM_FONTS:
        try:
            return ImageFont.truetype(name, size * _SCALE)
        except OSError:
            continue
    font = ImageFont.load_default(size * _SCALE)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _drawable(text: str, font: ImageFont.FreeTypeFont) -> str:
    if font.getname()[0] != "Aileron":  # the font inside Pillow
        return text
    return "".join(char if _is_built_in(char) else "?" for char in text)


def _is_built_in(char: str) -> bool:
    return char.isascii() or char in _BUILT_IN_CHARS
