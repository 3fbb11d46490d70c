"""Convert decoded images to 8-bit RGB, tile by tile to save memory."""

from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np
from PIL import ExifTags, Image

__all__ = ["exif_orientation", "to_rgb"]

#: Width and height of a tile in pixels: its copies take some tens of megabytes.
_TILE = 1024
_WHITE = (255, 255, 255, 255)
_TRANSPOSE_BY_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: TIFF tags.
_BITS, _PHOTOMETRIC, _FORMAT = 258, 262, 339


def exif_orientation(image: Image.Image) -> Image.Transpose | None:
    """The transposition that makes an image upright, by its EXIF data; None if it is upright."""
    with suppress(Exception):  # only its EXIF data is damaged
        return _TRANSPOSE_BY_ORIENTATION.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return None


def to_rgb(image: Image.Image, reduction: int = 1, raw_mode: str = "") -> Image.Image:
    """Convert an image to RGB, 8 bits per channel, transparency on white.

    Args:
        image: A loaded image of any mode.
        reduction: Number of pixels in each direction that become one, their mean.
        raw_mode: The pixel layout of the file, by Pillow's name.
    """
    convert = _conversion(image, raw_mode)
    if convert is None and reduction == 1:
        return image if image.mode == "RGB" else image.convert("RGB")
    size = (-(-image.width // reduction), -(-image.height // reduction))
    result = Image.new("RGB", size)
    for left, top, tile in _tiles(image, _TILE * reduction):
        rgb = tile.convert("RGB") if convert is None else convert(tile)
        result.paste(
            rgb.reduce(reduction) if reduction > 1 else rgb, (left // reduction, top // reduction)
        )
    return result


def _tiles(image: Image.Image, side: int) -> Iterator[tuple[int, int, Image.Image]]:
    for top in range(0, image.height, side):
        for left in range(0, image.width, side):
            box = (left, top, min(left + side, image.width), min(top + side, image.height))
            yield left, top, image.crop(box)


def _conversion(image: Image.Image, raw_mode: str) -> Callable[[Image.Image], Image.Image] | None:
    """The function that converts a tile to RGB; None if Pillow's own conversion is right."""
    if image.mode.startswith("I") or image.mode == "F":
        return _wide_grey(image)
    if image.mode == "La":  # Pillow converts this mode to LA only
        return lambda tile: _on_white(tile.convert("LA"))
    if image.has_transparency_data:
        colour = _transparent_colour(image, raw_mode)
        return lambda tile: _on_white(tile, colour)
    return None


def _on_white(tile: Image.Image, colour: int | tuple[int, ...] | None = None) -> Image.Image:
    if colour is not None:
        tile.info["transparency"] = colour
    layer = tile.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, _WHITE), layer).convert("RGB")


def _transparent_colour(image: Image.Image, raw_mode: str) -> int | tuple[int, ...] | None:
    """The transparent colour of a PNG in 8 bits; None if the file gives it in 8 bits.

    The file gives the colour in its own bit depth, and Pillow decodes the pixels to 8 bits.
    """
    given = image.info.get("transparency")
    if raw_mode.endswith("16B") and isinstance(given, tuple):
        return tuple(value >> 8 for value in given)
    if raw_mode in {"L;2", "L;4"} and isinstance(given, int):
        return given * (85 if raw_mode == "L;2" else 17)
    return None


def _wide_grey(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """Converts grey values of more than 8 bits: 16-bit files by their full range, others stretched.

    Pillow's own conversion clips at 255, which leaves a 16-bit image white.
    """
    tags = getattr(image, "tag_v2", {})
    # Pillow has no unsigned 32-bit values; it gives them as negative ones.
    unsigned = image.mode == "I" and tags.get(_BITS) == (32,) and tags.get(_FORMAT, (1,)) == (1,)
    inverted = tags.get(_PHOTOMETRIC) == 0
    low, high = _range(image, unsigned=unsigned)
    transparent = image.info.get("transparency")

    def convert(tile: Image.Image) -> Image.Image:
        values = _values(tile, unsigned=unsigned)
        scaled = (_finite(values, low, high) - low) * (255.0 / (high - low or 1.0))
        grey = np.rint(scaled).astype(np.uint8)
        if inverted:
            grey = 255 - grey
        if isinstance(transparent, int):
            grey[values == transparent] = 255
        return Image.fromarray(grey).convert("RGB")

    return convert


def _values(tile: Image.Image, *, unsigned: bool) -> np.ndarray:
    values = np.asarray(tile)
    return values.view(np.uint32) if unsigned else values


def _range(image: Image.Image, *, unsigned: bool) -> tuple[float, float]:
    """The grey values that become black and white."""
    lowest, highest = np.inf, -np.inf
    for _, _, tile in _tiles(image, _TILE):
        values = _values(tile, unsigned=unsigned)
        if values.dtype.kind == "f":
            # NaN counts as 0; infinities count as the lowest or highest finite value.
            values = np.where(np.isnan(values), 0, values)[~np.isinf(values)]
        if values.size:
            lowest = min(lowest, float(values.min()))
            highest = max(highest, float(values.max()))
    if image.mode != "F":
        full = 4095.0 if getattr(image, "tag_v2", {}).get(_BITS) == (12,) else 65535.0
        return (0.0, full) if lowest >= 0 and highest <= full else (lowest, highest)
    return (lowest, highest) if lowest <= highest else (0.0, 0.0)


def _finite(values: np.ndarray, low: float, high: float) -> np.ndarray:
    wide = values.astype(np.float64)
    if values.dtype.kind != "f":
        return wide
    return np.clip(np.nan_to_num(wide, nan=0.0, posinf=high, neginf=low), low, high)
