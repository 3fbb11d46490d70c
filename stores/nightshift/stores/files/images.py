"""Decoding images: whatever comes in, an upright RGB image or a clear reason goes out."""

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
from nightshift.stores.files.image_formats import DECODED, kind_of_bytes
from nightshift.stores.files.pixels import to_rgb, turn_of
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

#: Beyond this an image is taken for a decompression bomb.
MAX_PIXELS = 100_000_000
#: Beyond this an image is decoded at half its width and height. No model takes more than a quarter:
#: Qwen2-VL's 16,384 tokens of 28 × 28 pixels.
HALVED_PIXELS = 4 * 16_384 * 28 * 28

_MAX_BYTES = 256 * 2**20
#: What Pillow's decoders raise on damaged files.
_DAMAGE = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError,
    RuntimeError, AssertionError, EOFError, struct.error, zlib.error,
)  # fmt: skip

#: Bytes a pixel of Pillow's modes that take less than 4.
_MODE_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
#: Bytes a pixel that decoders hold beside the image they give, measured.
_DECODER_BYTES = {"WEBP": 13, "AVIF": 10, "JPEG2000": 16, "TIFF": 4, "GIF": 4}

_ON_ITS_SIDE = {
    Image.Transpose.TRANSPOSE,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_270,
}

# An icon may hold an image larger than it says; Pillow refuses twice this size.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2
# Pillow's own warnings would reach stderr: our error tells the same, or a camera's notes are odd.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """What a full decode found."""

    #: Of the file's bytes, hex.
    sha256: str
    #: Pixels of the file, upright.
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


def verify_image(
    address: str, *, max_pixels: int = MAX_PIXELS, roots: ImageRoots | None = None
) -> ImageInfo:
    """Decode the image at an address fully; below `roots` where given; raises as `read_image`."""
    data = read_bytes(address, max_bytes=_MAX_BYTES, noun="image", roots=roots)
    return verify_bytes(data, address, max_pixels=max_pixels)


def verify_bytes(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> ImageInfo:
    """Decode a picture that is at hand; `name` is for the error message."""
    facts = _facts(data, name, max_pixels)
    with decode_budget.take(facts.cost), _damage_named(data, name, max_pixels):
        _, turn = _decode(data, facts)
    width, height = facts.width, facts.height
    if turn in _ON_ITS_SIDE:
        width, height = height, width
    return ImageInfo(sha256=hashlib.sha256(data).hexdigest(), width=width, height=height)


def decode_image(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """As `decoded`, for whoever keeps the image: it counts in the budget while it is decoded."""
    with decoded(data, name, max_pixels=max_pixels) as image:
        return image


@contextmanager
def decoded(
    data: bytes, name: str, *, max_pixels: int = MAX_PIXELS, beside: int = 0
) -> Iterator[Image.Image]:
    """An image's bytes decoded: RGB, upright; of an animation, the first frame.

    An image of over `HALVED_PIXELS` comes at half its width and height. Until the block ends, it
    counts in the budget of this process, so that threads decode large images in turn.

    Args:
        data: Of a file.
        name: For error messages.
        max_pixels: Width times height.
        beside: Bytes a pixel that whoever uses the image takes while the block lasts.

    Raises:
        InputError: `image_unreadable` or `image_too_large`.
    """
    facts = _facts(data, name, max_pixels)
    with decode_budget.take(facts.cost) as held:
        with _damage_named(data, name, max_pixels):
            image, _ = _decode(data, facts)
        held.shrink((4 + beside) * image.width * image.height)
        yield image


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What an image's header says."""

    width: int
    height: int
    #: How many pixels become one in each direction.
    reduction: int
    #: Bytes that decoding takes at most.
    cost: int


def _facts(data: bytes, name: str, max_pixels: int) -> _Facts:
    if not data:
        raise InputError(f"{name} is empty; provide the image again", "image_unreadable")
    with _damage_named(data, name, max_pixels), _open(data) as image:
        n_pixels = image.width * image.height
        if n_pixels > max_pixels:
            size = f"{image.width}×{image.height} pixels"
            raise _too_large(name, size, max_pixels)
        reduction = 2 if n_pixels > HALVED_PIXELS else 1
        if reduction > 1 and image.format == "WEBP":
            # Its decoder keeps four copies in full size, 1.6 GB of 100 million pixels.
            size = f"{image.width}×{image.height} pixels in WebP"
            raise _too_large(name, size, HALVED_PIXELS)
        in_decoder = _DECODER_BYTES.get(image.format or "", 0)
        own = _MODE_BYTES.get(image.mode, 4)
        if reduction > 1 and image.format in {"JPEG", "MPO", "JPEG2000"}:
            own, in_decoder = own // reduction**2, in_decoder // reduction**2
        if image.info.get("progressive"):
            in_decoder = 6  # all coefficients, before the first pixel
        # The result, and the same once more where it is turned.
        cost = n_pixels * (own + in_decoder) + 8 * n_pixels // reduction**2
        if image.format == "ICO":  # what is inside may be larger than the header says
            cost = BUDGET_BYTES
        return _Facts(width=image.width, height=image.height, reduction=reduction, cost=cost)


def _decode(data: bytes, facts: _Facts) -> tuple[Image.Image, Image.Transpose | None]:
    with _open(data) as image:
        raw_mode = _raw_mode(image)
        loaded, reduction = _load(image, data, facts)
        turn = turn_of(loaded)
        result = to_rgb(loaded, reduction, raw_mode)
    return (result if turn is None else result.transpose(turn)), turn


def _load(image: Image.Image, data: bytes, facts: _Facts) -> tuple[Image.Image, int]:
    """The image with its pixels, and by how much these are still to be reduced."""
    if facts.reduction > 1 and image.format in {"JPEG", "MPO"}:
        image.draft(None, (facts.width // facts.reduction, facts.height // facts.reduction))
        image.load()
        return image, 1
    if facts.reduction > 1 and image.format == "JPEG2000":
        try:
            image.reduce = 1  # type: ignore[method-assign, assignment] # of the decoder, not ours
            image.load()
        except _DAMAGE:  # it may have been written without lesser resolutions
            image = _open(data)
        else:
            return image, 1
    image.load()
    return image, facts.reduction


def _open(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=tuple(DECODED))


def _raw_mode(image: Image.Image) -> str:
    """How pixels stand in the file, by Pillow's name."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    # A PNG's is a word, that of most other formats the first of several.
    raw = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return raw if isinstance(raw, str) else ""


@contextmanager
def _damage_named(data: bytes, name: str, max_pixels: int) -> Iterator[None]:
    try:
        yield
    except Image.DecompressionBombError as error:
        raise _too_large(name, "far too many pixels", max_pixels) from error
    except UnidentifiedImageError as error:
        what, remedy = kind_of_bytes(data) or (
            "no image of a known format",
            "convert it to JPEG or PNG",
        )
        raise InputError(f"{name} is {what}; {remedy}", "image_unreadable") from error
    except _DAMAGE as error:
        raise InputError(
            f"{name} is damaged ({error}); provide the image again", "image_unreadable"
        ) from error


def _too_large(name: str, found: str, max_pixels: int) -> InputError:
    return InputError(
        f"{name} has {found}, more than {max_pixels:,}; scale it down", "image_too_large"
    )
