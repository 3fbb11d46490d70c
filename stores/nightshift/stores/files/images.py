"""Decode images: the result is an upright RGB image, or an error that names the reason."""

import hashlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from nightshift.schema.errors import InputError
from nightshift.stores.files.decode_budget import BUDGET_BYTES, decode_budget
from nightshift.stores.files.files import read_bytes
from nightshift.stores.files.image_formats import DECODED_FORMATS, describe_undecodable
from nightshift.stores.files.pixels import exif_orientation, to_rgb
from nightshift.stores.files.roots import ImageRoots

__all__ = [
    "HALVED_PIXELS",
    "MAX_PIXELS",
    "ImageInfo",
    "decode_image",
    "decoded",
    "fetch_image",
    "read_image",
    "verify_bytes",
    "verify_image",
]

#: A larger image is refused as a decompression bomb.
MAX_PIXELS = 100_000_000
#: A larger image is decoded at half its width and height. No model reads more than a quarter of
#: this: Qwen2-VL reads 16,384 tokens of 28 × 28 pixels.
HALVED_PIXELS = 4 * 16_384 * 28 * 28

_MAX_BYTES = 256 * 2**20
#: Errors that Pillow's decoders raise on damaged files.
_DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError,
    RuntimeError, AssertionError, EOFError, struct.error, zlib.error,
)  # fmt: skip

#: Bytes per pixel of Pillow's modes; 4 for those that are missing here.
_MODE_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
#: Bytes per pixel that decoders allocate beside the result, measured.
_DECODER_BYTES = {"WEBP": 13, "AVIF": 10, "JPEG2000": 16, "TIFF": 4, "GIF": 4}

_SWAPS_SIDES = {
    Image.Transpose.TRANSPOSE,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_270,
}

# An icon may hold a larger image than its header says; Pillow refuses twice this size.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2
# Pillow's warnings would reach stderr: they repeat our errors, or complain about EXIF data.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """Digest and size of an image that was decoded fully."""

    #: Of the file's bytes, hexadecimal.
    sha256: str
    #: In pixels, of the upright image.
    width: int
    height: int


def read_image(address: str, *, sha256: str = "", max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Fetch and decode an image: RGB, upright, 8 bits per channel, transparency on white.

    Args:
        address: As for `open_file`.
        sha256: Digest of the bytes that were imported; empty if they were not read then.
        max_pixels: The largest allowed product of width and height.

    Raises:
        InputError: `image_missing`, `image_unreadable`, `image_too_large`, `image_unreachable` or
            `image_not_allowed`; `image_changed` when the digest differs, because a score is stored
            under the content that was imported.
        ServiceUnavailableError: When the store that holds it does not answer.
    """
    data = fetch_image(address, sha256=sha256)
    return decode_image(data, address, max_pixels=max_pixels)


def fetch_image(address: str, *, sha256: str = "") -> bytes:
    """Fetch the bytes of the image at an address; arguments and errors as `read_image`."""
    data = read_bytes(address, max_bytes=_MAX_BYTES, noun="image")
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        raise InputError(
            f"{address} is not the image that was imported; import the catalogue again",
            "image_changed",
        )
    return data


def verify_image(
    address: str, *, max_pixels: int = MAX_PIXELS, roots: ImageRoots | None = None
) -> ImageInfo:
    """Fetch and decode the image at an address, below `roots` if given; raises as `read_image`."""
    data = read_bytes(address, max_bytes=_MAX_BYTES, noun="image", roots=roots)
    return verify_bytes(data, address, max_pixels=max_pixels)


def verify_bytes(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> ImageInfo:
    """Decode the bytes of an image; `name` is used in the error message."""
    header = _read_header(data, name, max_pixels)
    with decode_budget.reserve(header.cost), _named_errors(data, name, max_pixels):
        _, orientation = _decode(data, header)
    width, height = header.width, header.height
    if orientation in _SWAPS_SIDES:
        width, height = height, width
    return ImageInfo(sha256=hashlib.sha256(data).hexdigest(), width=width, height=height)


def decode_image(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """As `decoded`, for callers that keep the image: the budget counts it during decoding only."""
    with decoded(data, name, max_pixels=max_pixels) as image:
        return image


@contextmanager
def decoded(
    data: bytes, name: str, *, max_pixels: int = MAX_PIXELS, beside: int = 0
) -> Iterator[Image.Image]:
    """Decode an image: RGB, upright; the first frame of an animation.

    An image of more than `HALVED_PIXELS` is decoded at half its width and height. The image counts
    in the budget of this process until the block ends, so threads decode large images in turn.

    Args:
        data: The bytes of the file.
        name: Used in error messages.
        max_pixels: The largest allowed product of width and height.
        beside: Bytes per pixel that the caller allocates while the block lasts.

    Raises:
        InputError: `image_unreadable` or `image_too_large`.
    """
    header = _read_header(data, name, max_pixels)
    with decode_budget.reserve(header.cost) as reservation:
        with _named_errors(data, name, max_pixels):
            image, _ = _decode(data, header)
        reservation.shrink((4 + beside) * image.width * image.height)
        yield image


@dataclass(frozen=True, slots=True, kw_only=True)
class _ImageHeader:
    """Size of an image by its header, and the memory that decoding it takes."""

    width: int
    height: int
    #: Number of pixels in each direction that become one.
    reduction: int
    #: The most bytes that decoding takes.
    cost: int


def _read_header(data: bytes, name: str, max_pixels: int) -> _ImageHeader:
    if not data:
        raise InputError(f"{name} is empty; provide the image again", "image_unreadable")
    with _named_errors(data, name, max_pixels), _open(data) as image:
        n_pixels = image.width * image.height
        if n_pixels > max_pixels:
            size = f"{image.width}×{image.height} pixels"
            raise _too_large(name, size, max_pixels)
        reduction = 2 if n_pixels > HALVED_PIXELS else 1
        if reduction > 1 and image.format == "WEBP":
            # Its decoder holds four copies in full size: 1.6 GB for 100 million pixels.
            size = f"{image.width}×{image.height} pixels in WebP"
            raise _too_large(name, size, HALVED_PIXELS)
        in_decoder = _DECODER_BYTES.get(image.format or "", 0)
        own = _MODE_BYTES.get(image.mode, 4)
        if reduction > 1 and image.format in {"JPEG", "MPO", "JPEG2000"}:
            own, in_decoder = own // reduction**2, in_decoder // reduction**2
        if image.info.get("progressive"):
            in_decoder = 6  # the decoder holds all coefficients
        # The result, and a second copy if it is rotated.
        cost = n_pixels * (own + in_decoder) + 8 * n_pixels // reduction**2
        if image.format == "ICO":  # the image inside may be larger than the header says
            cost = BUDGET_BYTES
        return _ImageHeader(width=image.width, height=image.height, reduction=reduction, cost=cost)


def _decode(data: bytes, header: _ImageHeader) -> tuple[Image.Image, Image.Transpose | None]:
    with _open(data) as image:
        raw_mode = _raw_mode(image)
        loaded, reduction = _load(image, data, header)
        orientation = exif_orientation(loaded)
        result = to_rgb(loaded, reduction, raw_mode)
    return (result if orientation is None else result.transpose(orientation)), orientation


def _load(image: Image.Image, data: bytes, header: _ImageHeader) -> tuple[Image.Image, int]:
    """Load the pixels; returns the image and the reduction that is still to be done."""
    if header.reduction > 1 and image.format in {"JPEG", "MPO"}:
        image.draft(None, (header.width // header.reduction, header.height // header.reduction))
        image.load()
        return image, 1
    if header.reduction > 1 and image.format == "JPEG2000":
        try:
            image.reduce = 1  # type: ignore[method-assign, assignment] # an attribute of the decoder
            image.load()
        except _DECODER_ERRORS:  # the file may hold no smaller resolutions
            image = _open(data)
        else:
            return image, 1
    image.load()
    return image, header.reduction


def _open(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=tuple(DECODED_FORMATS))


def _raw_mode(image: Image.Image) -> str:
    """The pixel layout of the file, by Pillow's name."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    # A PNG has one string here; most other formats have it as the first of several values.
    raw = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return raw if isinstance(raw, str) else ""


@contextmanager
def _named_errors(data: bytes, name: str, max_pixels: int) -> Iterator[None]:
    try:
        yield
    except Image.DecompressionBombError as error:
        raise _too_large(name, "far too many pixels", max_pixels) from error
    except UnidentifiedImageError as error:
        description, remedy = describe_undecodable(data) or (
            "not an image of a known format",
            "convert it to JPEG or PNG",
        )
        raise InputError(f"{name} is {description}; {remedy}", "image_unreadable") from error
    except _DECODER_ERRORS as error:
        raise InputError(
            f"{name} is damaged ({error}); provide the image again", "image_unreadable"
        ) from error


def _too_large(name: str, size: str, max_pixels: int) -> InputError:
    return InputError(
        f"{name} has {size}, more than {max_pixels:,}; scale it down", "image_too_large"
    )
