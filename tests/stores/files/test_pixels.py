"""Pixels of ordinary images as models get them are pinned: every stored score depends on them."""

import hashlib
import io
import struct
import subprocess
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nightshift.schema.errors import InputError
from nightshift.stores.files import images, pixels
from nightshift.stores.files.decode_budget import DecodeBudget
from nightshift.stores.files.images import decode_image, verify_bytes

SIZE = (97, 61)


def _values(channels: int, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    high = 256 if dtype is np.uint8 else 65536
    shape = (SIZE[1], SIZE[0], channels) if channels > 1 else (SIZE[1], SIZE[0])
    return np.random.default_rng(seed).integers(0, high, shape).astype(dtype)


def _saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _palette() -> Image.Image:
    image = Image.fromarray(_values(1))
    image = image.convert("P")
    image.putpalette(_values(3, seed=1).reshape(-1)[:768].tobytes())
    return image


def _turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return _saved(Image.fromarray(_values(3)), exif=exif)


IMAGES = {
    "rgb": lambda: _saved(Image.fromarray(_values(3))),
    "rgb bmp": lambda: _saved(Image.fromarray(_values(3)), "BMP"),
    "grey": lambda: _saved(Image.fromarray(_values(1))),
    "bits": lambda: _saved(Image.fromarray(_values(1)).convert("1", dither=0)),
    "palette": lambda: _saved(_palette()),
    "palette, an entry transparent": lambda: _saved(_palette(), transparency=7),
    "palette, entries half transparent": lambda: _saved(_palette(), transparency=bytes(range(256))),
    "gif": lambda: _saved(_palette(), "GIF", transparency=3),
    "grey, a value transparent": lambda: _saved(Image.fromarray(_values(1)), transparency=9),
    "rgb, a colour transparent": lambda: _saved(
        Image.fromarray(_values(3) & 192), transparency=(64, 128, 192)
    ),
    "grey and alpha": lambda: _saved(Image.fromarray(_values(2), "LA")),
    "rgba": lambda: _saved(Image.fromarray(_values(4))),
    "rgba webp": lambda: _saved(Image.fromarray(_values(4)), "WEBP", lossless=True),
    "16 bits": lambda: _saved(Image.fromarray(_values(1, np.uint16))),
    "16 bits tiff": lambda: _saved(Image.fromarray(_values(1, np.uint16)), "TIFF"),
    "32 bits, small": lambda: _saved(Image.fromarray(_values(1, np.int32)), "TIFF"),
    "32 bits, stretched": lambda: _saved(Image.fromarray(_values(1, np.int32) * 7 - 1000), "TIFF"),
    "floats": lambda: _saved(Image.fromarray(_values(1, np.float32) / 7 - 99), "TIFF"),
    "cmyk": lambda: _saved(Image.fromarray(_values(4), "CMYK"), "TIFF"),
    "turned by 6": lambda: _turned(6),
    "turned by 3": lambda: _turned(3),
}
#: Taken before images were decoded tile by tile.
DIGESTS = {
    "rgb": "48284cd1ca18b0a2",
    "rgb bmp": "48284cd1ca18b0a2",
    "grey": "0c39bfb8a64456c0",
    "bits": "d2ee9413c7118e93",
    "palette": "ef189e10b9c0f43c",
    "palette, an entry transparent": "d736f87a793bd396",
    "palette, entries half transparent": "66d8f5379c2456a5",
    "gif": "a96ae2c6c98f507b",
    "grey, a value transparent": "555c3c1ec18f3bd2",
    "rgb, a colour transparent": "55e2a33eb7d6be23",
    "grey and alpha": "a15416fa2cba09c1",
    "rgba": "1916019177c04c0e",
    "rgba webp": "1916019177c04c0e",
    "16 bits": "6a9d86d130b4f286",
    "16 bits tiff": "6a9d86d130b4f286",
    "32 bits, small": "6a9d86d130b4f286",
    "32 bits, stretched": "b930aca92fdf0653",
    "floats": "b930aca92fdf0653",
    "cmyk": "c7529abd6e12dbd0",
    "turned by 6": "fe248fd593e263fb",
    "turned by 3": "ef7ffbcc682a41a8",
}


def _png(depth: int, colour: int, row: bytes, *transparent: int) -> bytes:
    """A PNG of two pixels, in depths that Pillow reads and does not write."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 2, 1, depth, colour, 0, 0, 0))]
    if transparent:
        chunks.append((b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)))
    chunks += [(b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    complete = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        complete += struct.pack(">I", len(data)) + kind + data + crc
    return complete


def _tiff(photometric: int, bits: int, sample: int, data: bytes, extra: int | None = None) -> bytes:
    """A TIFF of two pixels (or as many as `data` has)."""
    channels = 1 if extra is None else 2
    width = len(data) * 8 // bits // channels
    tags = [
        (256, width), (257, 1), (258, bits), (259, 1), (262, photometric), (273, 8),
        (277, channels), (278, 1), (279, len(data)),
    ]  # fmt: skip
    if extra is not None:
        tags.append((338, extra))
    tags.append((339, sample))
    body = data + b"\0" * (len(data) % 2)
    entries = b"".join(
        struct.pack("<HHIHH", tag, 3, 2, value, value)
        if tag in {258, 339} and channels == 2
        else struct.pack("<HHII", tag, 4, 1, value)
        for tag, value in tags
    )
    start = 8 + len(body)
    return (
        b"II*\0"
        + struct.pack("<I", start)
        + body
        + struct.pack("<H", len(tags))
        + entries
        + bytes(4)
    )


def _greys(data: bytes) -> list[int]:
    return np.asarray(decode_image(data, "x"))[0, :, 0].tolist()


@pytest.mark.parametrize("name", IMAGES)
def test_an_ordinary_image_has_the_pixels_it_always_had(name: str):
    decoded_image = decode_image(IMAGES[name](), "x")

    assert hashlib.sha256(decoded_image.tobytes()).hexdigest()[:16] == DIGESTS[name]


@pytest.mark.parametrize("name", IMAGES)
def test_tiles_leave_no_trace(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pixels, "_TILE", 16)

    test_an_ordinary_image_has_the_pixels_it_always_had(name)


@pytest.mark.parametrize(
    ("depth", "row", "transparent"),
    [
        (16, struct.pack(">2H", 0x1234, 0x8000), 0x1234),
        (8, bytes([5, 128]), 5),
        (4, b"\x58", 5),
        (2, b"\x60", 1),
        (1, b"\x40", 0),
    ],
)
def test_a_transparent_grey_of_any_depth_becomes_white(depth: int, row: bytes, transparent: int):
    first, second = _greys(_png(depth, 0, row, transparent))

    assert first == 255
    assert second == {16: 128, 8: 128, 4: 136, 2: 170, 1: 255}[depth]


def test_a_transparent_colour_of_16_bits_becomes_white():
    row = struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0x4321, 0, 0)

    image = decode_image(_png(16, 2, row, 0x1234, 0x5678, 0x9ABC), "x")

    assert list(image.get_flattened_data()) == [(255, 255, 255), (0x43, 0, 0)]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(_tiff(0, 16, 1, struct.pack("<2H", 0, 65535)), [255, 0], id="white is 0"),
        pytest.param(_tiff(0, 32, 3, struct.pack("<2f", 0, 1)), [255, 0], id="floats, white is 0"),
        pytest.param(_tiff(1, 12, 1, bytes([0, 0x0F, 0xFF])), [0, 255], id="12 bits"),
        pytest.param(_tiff(1, 32, 1, struct.pack("<2I", 0, 2**32 - 1)), [0, 255], id="unsigned"),
        pytest.param(_tiff(1, 32, 2, struct.pack("<2i", -5, 5)), [0, 255], id="signed"),
        pytest.param(
            _tiff(1, 32, 3, struct.pack("<4f", np.nan, np.inf, -1, 1)), [128, 255, 0, 255], id="nan"
        ),
        pytest.param(_tiff(1, 32, 3, struct.pack("<2f", np.nan, np.nan)), [0, 0], id="only nan"),
        pytest.param(_tiff(1, 8, 1, bytes([9, 0, 128, 255]), 2), [255, 128], id="alpha"),
        pytest.param(_tiff(1, 8, 1, bytes([0, 0, 128, 255]), 1), [255, 128], id="premultiplied"),
    ],
)
def test_grey_tiffs_of_every_kind_have_their_brightness(data: bytes, expected: list[int]):
    assert _greys(data) == expected


def test_an_image_too_large_for_any_model_is_halved_by_its_mean(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(images, "HALVED_PIXELS", 97 * 61 - 1)
    complete = Image.fromarray(_values(3))

    for kind in ("PNG", "BMP", "TIFF"):
        assert decode_image(_saved(complete, kind), "x").tobytes() == complete.reduce(2).tobytes()
    for kind in ("JPEG", "JPEG2000", "AVIF", "GIF"):
        assert decode_image(_saved(complete, kind), "x").size == (49, 31)
    assert decode_image(_saved(complete, "JPEG2000", num_resolutions=1), "x").size == (49, 31)
    assert verify_bytes(_turned(6), "x").width == 61


def test_a_webp_that_cannot_be_reduced_is_refused_when_it_is_large(monkeypatch: pytest.MonkeyPatch):
    webp = _saved(Image.fromarray(_values(3)), "WEBP")
    monkeypatch.setattr(images, "HALVED_PIXELS", 97 * 61 - 1)

    with pytest.raises(InputError, match="pixels in WebP, more than 5,916; scale it down"):
        decode_image(webp, "x")


def test_images_wait_until_their_bytes_fit_and_a_larger_one_goes_alone():
    budget = DecodeBudget(100)
    peak, now = [], [0]
    lock = threading.Lock()

    def decode(n_bytes: int) -> None:
        with budget.reserve(n_bytes) as held:
            with lock:
                now[0] += n_bytes
                peak.append(now[0] if n_bytes <= 100 else now[0] - n_bytes)
            with lock:
                now[0] -= n_bytes
            held.shrink(n_bytes // 2)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, [60, 10, 500, 40, 100, 30, 500, 1] * 20))

    assert max(peak) <= 100
    assert peak.count(0) == 40  # beside a large one there was nothing
    with budget.reserve(100):
        pass


_PEAK = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from nightshift.stores.files import images
from nightshift.stores.files.decode_budget import DecodeBudget
images.decode_budget = DecodeBudget(64 * 2**20)
data = Path(sys.argv[1]).read_bytes()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with ThreadPoolExecutor(4) as pool:
    for info in pool.map(lambda _: images.verify_bytes(data, "x"), range(4)):
        assert info.width * info.height == 9_000_000
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_four_threads_take_the_memory_of_one_where_the_budget_says_so(tmp_path: Path):
    Image.new("LA", (3000, 3000)).save(tmp_path / "x.png", compress_level=1)
    command = [sys.executable, "-c", _PEAK, str(tmp_path / "x.png")]

    done = subprocess.run(command, check=True, capture_output=True, text=True)

    # MiB; 72 for the image and its RGB, where it was 250 for each thread.
    assert int(done.stdout) < 180


def test_odd_notes_of_a_camera_print_no_warning(tmp_path: Path):
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(path, exif=b"Exif\0\0MM\0*\0\0\0\x08" + b"\xff" * 40)
    code = (
        "import sys; from nightshift.stores.files.images import read_image; read_image(sys.argv[1])"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
