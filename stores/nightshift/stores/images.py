"""Decoding images: whatever comes in, one upright RGB picture or one clear reason goes out."""

import hashlib
import io
import struct
import warnings
import zlib
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from nightshift.schema.errors import InputError
from nightshift.stores.files import read_bytes

__all__ = [
    "MAX_PIXELS",
    "ImageInfo",
    "decode_image",
    "fetch_image",
    "read_image",
    "verify_bytes",
    "verify_image",
]

#: Beyond this a picture is taken for a decompression bomb; 300 MB once decoded.
MAX_PIXELS = 100_000_000

_MAX_BYTES = 256 * 2**20
# An allow-list: Pillow hands EPS to Ghostscript, and rare decoders are rarely attacked in tests.
_FORMATS = ("AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
#: What Pillow's decoders raise on damaged files.
_DAMAGE = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError,
    RuntimeError, AssertionError, EOFError, struct.error, zlib.error,
)  # fmt: skip

# Pillow's own warning would reach stderr before our error tells the same.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """What a full decode found."""

    #: Of the file's bytes, hex.
    sha256: str
    #: Pixels, upright.
    width: int
    height: int


def read_image(address: str, *, sha256: str = "", max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture at an address: RGB, upright, 8 bits a channel, transparency on white.

    Args:
        address: As for `open_file`.
        sha256: Digest of the bytes that were imported; empty where they were not read then.
        max_pixels: Width times height.

    Raises:
        InputError: `image_missing`, `image_unreadable`, `image_too_large`, `image_unreachable` or
            `image_not_allowed`; `image_changed` where the bytes are not those of the digest, for a
            score is kept under the content that was imported.
        ServiceUnavailableError: Where the store that holds it does not answer.
    """
    data = fetch_image(address, sha256=sha256)
    return decode_image(data, address, max_pixels=max_pixels)


def fetch_image(address: str, *, sha256: str = "") -> bytes:
    """The bytes of the picture at an address, not decoded yet; takes and raises as `read_image`."""
    data = read_bytes(address, max_bytes=_MAX_BYTES, noun="image")
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        raise InputError(
            f"{address} is not the image that was imported; import the catalogue again",
            "image_changed",
        )
    return data


def verify_image(address: str, *, max_pixels: int = MAX_PIXELS) -> ImageInfo:
    """Decode the picture at an address fully; raises as `read_image`."""
    data = read_bytes(address, max_bytes=_MAX_BYTES, noun="image")
    return verify_bytes(data, address, max_pixels=max_pixels)


def verify_bytes(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> ImageInfo:
    """Decode a picture that is at hand; `name` is for the error message."""
    width, height = decode_image(data, name, max_pixels=max_pixels).size
    return ImageInfo(sha256=hashlib.sha256(data).hexdigest(), width=width, height=height)


def decode_image(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a picture's bytes; of an animation, the first frame.

    Raises:
        InputError: `image_unreadable` or `image_too_large`.
    """
    if not data:
        raise InputError(f"{name} is empty; provide the image again", "image_unreadable")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise _too_large(name, f"{width}×{height} pixels", max_pixels)
            image.load()
            return _to_rgb(_upright(image))
    except Image.DecompressionBombError as error:
        raise _too_large(name, "far too many pixels", max_pixels) from error
    except UnidentifiedImageError as error:
        raise InputError(
            f"{name} is no image of a known format; convert it to JPEG or PNG", "image_unreadable"
        ) from error
    except _DAMAGE as error:
        raise InputError(
            f"{name} is damaged ({error}); provide the image again", "image_unreadable"
        ) from error


def _too_large(name: str, found: str, max_pixels: int) -> InputError:
    return InputError(
        f"{name} has {found}, more than {max_pixels:,}; scale it down", "image_too_large"
    )


def _upright(image: Image.Image) -> Image.Image:
    # In place: most pictures stand upright, and would be copied all the same.
    with suppress(*_DAMAGE):  # the picture is there; only its camera's notes are damaged
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _from_wide(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_wide(image: Image.Image) -> Image.Image:
    """Grey values of more than 8 bits: 16-bit files by their full range, others stretched.

    Pillow's own conversion clips at 255, which leaves a 16-bit picture white.
    """
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    low, high = 0.0, 65535.0
    if image.mode == "F" or values.min() < low or values.max() > high:
        low, high = float(values.min()), float(values.max())
    scaled = (values - low) * (255.0 / (high - low or 1.0))
    return Image.fromarray(np.rint(scaled).astype(np.uint8)).convert("RGB")
