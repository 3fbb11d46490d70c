"""One door for files and one decoder for images: good images come out upright, bad ones named."""

import contextlib
import hashlib
import http.server
import io
import os
import random
import struct
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec import AbstractFileSystem
from PIL import Image

from nightshift.schema.errors import (
    ConfigurationError,
    InputError,
    NightshiftError,
    ServiceUnavailableError,
)
from nightshift.stores.files import deadlines
from nightshift.stores.files.addresses import MemberAddress
from nightshift.stores.files.files import open_file, read_bytes, sha256
from nightshift.stores.files.http import web_rules
from nightshift.stores.files.images import decode_image, read_image, verify_image

RED, WHITE = (255, 0, 0), (255, 255, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _png(*chunks: tuple[bytes, bytes]) -> bytes:
    complete = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        complete += struct.pack(">I", len(data)) + kind + data + crc
    return complete


#: One red pixel of 16 bits a channel, which Pillow reads but does not write.
_SIXTEEN_BIT_RED = _png(
    (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)),
    (b"IDAT", zlib.compress(b"\x00" + struct.pack(">HHH", 65535, 0, 0))),
    (b"IEND", b""),
)
#: 500 MB of camera notes, packed into 500 kB.
_COMMENT_BOMB = _png(
    (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)),
    (b"zTXt", b"Comment\x00\x00" + zlib.compress(bytes(500 * 10**6))),
    (b"IDAT", zlib.compress(bytes(4))),
    (b"IEND", b""),
)


def noise(size: tuple[int, int] = (64, 48)) -> Image.Image:
    generator = np.random.default_rng(0)
    return Image.fromarray(generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def reason(data: bytes, **options: int) -> str:
    with pytest.raises(InputError) as caught:
        decode_image(data, "x", **options)
    return caught.value.reason


# What comes out


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_a_lossless_image_comes_out_as_it_is(kind: str):
    image = noise()
    assert decode_image(encoded(image, kind), "x").tobytes() == image.tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "JPEG2000", "AVIF", "GIF", "ICO"])
def test_every_common_format_is_read(kind: str):
    result = decode_image(encoded(Image.new("RGB", (32, 32), RED), kind), "x")
    assert (result.mode, result.size) == ("RGB", (32, 32))
    assert np.abs(np.asarray(result, np.int16) - RED).max() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_camera_orientation_is_applied(orientation: int):
    upright = Image.new("RGB", (30, 20), WHITE)
    upright.paste(RED, (0, 0, 15, 10))  # red in the upper left
    stored = upright
    for method in {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }.get(orientation, []):
        stored = stored.transpose(method)
    exif = Image.Exif()
    exif[0x0112] = orientation

    result = decode_image(encoded(stored, exif=exif), "x")

    assert result.tobytes() == upright.tobytes()


def test_damaged_camera_notes_do_not_cost_the_image():
    data = encoded(
        Image.new("RGB", (8, 8), RED), "JPEG", exif=b"Exif\x00\x00garbage that is no tiff"
    )
    assert decode_image(data, "x").size == (8, 8)


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(Image.new("RGBA", (4, 4), (255, 0, 0, 0)), id="rgba"),
        pytest.param(Image.new("LA", (4, 4), (7, 0)), id="grey-alpha"),
    ],
)
def test_what_is_transparent_becomes_white(image: Image.Image):
    assert set(decode_image(encoded(image), "x").get_flattened_data()) == {WHITE}


def test_half_transparent_red_becomes_pink():
    image = Image.new("RGBA", (1, 1), (255, 0, 0, 128))
    assert decode_image(encoded(image), "x").getpixel((0, 0)) == (255, 127, 127)


def test_a_palette_keeps_its_colours_and_its_transparent_entry_becomes_white():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    result = decode_image(encoded(image, transparency=1), "x")
    assert list(result.get_flattened_data()) == [RED, WHITE]


def test_a_palette_whose_entries_are_half_transparent_is_laid_on_white():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    result = decode_image(encoded(image, transparency=bytes([128, 0])), "x")
    assert list(result.get_flattened_data()) == [(255, 127, 127), WHITE]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_one_pixel_is_an_image(kind: str):
    assert decode_image(encoded(Image.new("RGB", (1, 1), WHITE), kind), "x").size == (1, 1)


def test_sixteen_bit_colour_becomes_eight_bit():
    assert decode_image(_SIXTEEN_BIT_RED, "x").getpixel((0, 0)) == RED


def test_sixteen_bit_grey_keeps_its_full_range():
    values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    result = decode_image(encoded(Image.fromarray(values)), "x")
    assert np.asarray(result)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_float_grey_is_stretched_to_the_full_range():
    values = np.array([[-1.0, 0.0, 1.0]], dtype=np.float32)
    result = decode_image(encoded(Image.fromarray(values), "TIFF"), "x")
    assert np.asarray(result)[0, :, 0].tolist() == [0, 128, 255]


def test_cmyk_is_converted():
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    result = np.asarray(decode_image(encoded(image, "JPEG"), "x"), np.int16)
    assert np.abs(result - RED).max() < 12


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P"])
def test_every_mode_becomes_rgb(mode: str):
    assert decode_image(encoded(Image.new(mode, (3, 3))), "x").mode == "RGB"


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(kind: str):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, WHITE, (0, 0, 255))]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert decode_image(data, "x").getpixel((4, 4)) == RED


# What is refused


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(b"", "image_unreadable", id="empty"),
        pytest.param(b"<html>404</html>", "image_unreadable", id="web-page"),
        pytest.param(b"\x89PNG\r\n\x1a\n", "image_unreadable", id="header-only"),
        pytest.param(
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            "image_unreadable",
            id="postscript",
        ),
    ],
)
def test_what_is_no_image_is_refused(data: bytes, code: str):
    assert reason(data) == code


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "JPEG2000"])
def test_a_truncated_image_is_refused(kind: str):
    data = encoded(noise(), kind)
    assert reason(data[: len(data) // 2]) == "image_unreadable"


def test_an_image_beyond_the_limit_is_refused_before_it_is_decoded():
    data = encoded(Image.new("1", (20_000, 20_000)))  # 50 kB of file, 1.2 GB as RGB
    assert reason(data) == "image_too_large"
    assert reason(encoded(noise()), max_pixels=64 * 48 - 1) == "image_too_large"
    assert decode_image(encoded(noise()), "x", max_pixels=64 * 48).size == (64, 48)


def test_an_image_with_a_bomb_in_its_notes_is_refused():
    tracemalloc.start()
    try:
        assert reason(_COMMENT_BOMB) == "image_unreadable"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50 * 2**20


def test_damage_of_any_kind_never_raises_anything_but_our_error():
    generator = random.Random(0)
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "ICO", "PPM"):
        complete = encoded(noise((32, 32)), kind)
        for _ in range(60):
            data = bytearray(complete)
            for _ in range(generator.randint(1, 8)):
                data[generator.randrange(len(data))] = generator.randrange(256)
            with contextlib.suppress(InputError):
                decode_image(bytes(data), "x", max_pixels=10**6)


# Files, wherever they are


def test_a_local_file_and_its_url_give_the_same_image_and_digest(tmp_path: Path):
    path = tmp_path / "an image.png"
    path.write_bytes(encoded(noise()))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()

    info = verify_image(str(path))

    assert (info.sha256, info.width, info.height) == (digest, 64, 48)
    assert verify_image(f"file://{path}") == info
    assert sha256(str(path)) == digest
    assert read_image(str(path)).tobytes() == noise().tobytes()


def test_verification_reports_the_upright_size(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "x.jpg").write_bytes(encoded(noise(), "JPEG", exif=exif))
    info = verify_image(str(tmp_path / "x.jpg"))
    assert (info.width, info.height) == (48, 64)


def test_a_file_in_another_file_system_is_read_and_sought():
    with fsspec.open("memory://shelf/x.bin", "wb") as file:
        file.write(bytes(range(100)))
    with open_file("memory://shelf/x.bin") as stream:
        assert stream.read(3) == b"\x00\x01\x02"
        assert stream.seek(-2, io.SEEK_END) == 98
        assert stream.read() == b"\x62\x63"


def test_a_member_of_a_tar_is_read_by_its_offset(tmp_path: Path):
    image = encoded(noise())
    (tmp_path / "shard.tar").write_bytes(b"before" + image + b"after")
    member = MemberAddress(
        archive=str(tmp_path / "shard.tar"), name="a/b.png", offset=6, size=len(image)
    )
    assert read_image(str(member)).tobytes() == noise().tobytes()


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("{tmp}/nothing.png", "image_missing"),
        ("{tmp}/file/below.png", "image_missing"),
        ("file://{tmp}/nothing.png", "image_missing"),
        ("memory://nothing/at/all.png", "image_missing"),
        ("{tmp}", "image_unreadable"),
        ("{tmp}/pipe", "image_unreadable"),
        ("/dev/zero", "image_unreadable"),
        ("{tmp}/nul\0", "image_unreadable"),
        ("{tmp}/" + "n" * 300, "image_unreadable"),
        ("{tmp}/loop", "image_unreadable"),
        ("nosuchprotocol://x/y.png", "image_unreadable"),
    ],
)
def test_what_cannot_be_opened_is_refused_with_its_reason(tmp_path: Path, address: str, code: str):
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError) as caught:
        read_image(address.replace("{tmp}", str(tmp_path)))
    assert caught.value.reason == code


def test_a_file_beyond_the_limit_is_not_read_to_its_end():
    with pytest.raises(InputError) as caught:
        read_bytes(__file__, max_bytes=100)
    assert caught.value.reason == "file_too_large"


def test_a_store_that_does_not_answer_is_an_outage_not_a_bad_item():
    with pytest.raises(ServiceUnavailableError) as caught:
        read_image("ftp://127.0.0.1:9/x.png")
    assert caught.value.service == "files"


class _Stuck(AbstractFileSystem):
    """A store that takes a connection and says nothing; asked where the name says."""

    protocol = "stuck"
    cachable = False
    answered = threading.Event()

    def _open(self, path: str, *_: object, **__: object) -> io.BytesIO:
        if "open" in path:
            self.answered.wait()
        reader = io.BytesIO(b"x" * 100)
        reader.read = lambda *_: self.answered.wait() or b""
        return reader


@pytest.mark.parametrize("step", ["open", "read"])
@pytest.mark.parametrize("noun", ["image", "file"])
def test_a_store_that_says_nothing_is_left_within_the_lease(
    step: str, noun: str, monkeypatch: pytest.MonkeyPatch
):
    fsspec.register_implementation("stuck", _Stuck, clobber=True)
    monkeypatch.setenv("NIGHTSHIFT_LEASE_S", "0.4")
    deadlines.fetch_timeout_s.cache_clear()
    try:
        with pytest.raises(ServiceUnavailableError, match="does not answer in time"):
            read_bytes(f"stuck://{step}/x.png", max_bytes=1000, noun=noun)
    finally:
        deadlines.fetch_timeout_s.cache_clear()
        _Stuck.answered.set()
        _Stuck.answered = threading.Event()


def test_a_missing_driver_names_the_package():
    with pytest.raises(ConfigurationError, match="adlfs"):
        read_image("abfs://container/x.png")


_SHARD_MEMBER = len(encoded(noise()))


class _Pages(http.server.BaseHTTPRequestHandler):
    busy = 0

    def do_GET(self):
        if self.path == "/shard.tar":
            assert self.headers["Range"] == f"bytes=6-{5 + _SHARD_MEMBER}"
            self.send_response(206)
            self.end_headers()
            self.wfile.write(encoded(noise()))
        elif self.path == "/busy.png" and _Pages.busy:
            _Pages.busy -= 1
            self.send_error(503)
        elif self.path in {"/x.png", "/busy.png"}:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(encoded(noise()))
        else:
            self.send_error(403 if self.path == "/secret.png" else 404)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("NIGHTSHIFT_IMAGE_NETWORKS", "127.0.0.0/8")
    web_rules.cache_clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Pages) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
    web_rules.cache_clear()


def test_an_image_comes_from_the_web(web: str):
    assert read_image(f"{web}/x.png").tobytes() == noise().tobytes()


def test_a_busy_web_server_is_asked_again(web: str):
    _Pages.busy = 1
    assert read_image(f"{web}/busy.png").size == (64, 48)


def test_a_member_of_a_tar_comes_from_the_web_by_its_span(web: str):
    member = MemberAddress(archive=f"{web}/shard.tar", name="a.png", offset=6, size=_SHARD_MEMBER)

    assert read_image(str(member)).tobytes() == noise().tobytes()


def test_an_image_that_was_exchanged_since_its_import_is_refused(tmp_path: Path):
    path = tmp_path / "x.png"
    path.write_bytes(encoded(noise()))
    digest = verify_image(str(path)).sha256
    assert read_image(str(path), sha256=digest).size == (64, 48)

    path.write_bytes(encoded(Image.new("RGB", (64, 48), RED)))

    with pytest.raises(InputError) as caught:
        read_image(str(path), sha256=digest)
    assert caught.value.reason == "image_changed"


@pytest.mark.parametrize(
    ("page", "code"), [("/none.png", "image_missing"), ("/secret.png", "image_unreachable")]
)
def test_what_the_web_does_not_deliver_is_that_items_fault(web: str, page: str, code: str):
    with pytest.raises(InputError) as caught:
        read_image(web + page)
    assert caught.value.reason == code


def test_a_dead_web_host_is_that_items_fault(web: str):
    with pytest.raises(InputError) as caught:
        read_image("http://127.0.0.1:9/x.png")
    assert caught.value.reason == "image_unreachable"


def test_every_refusal_says_what_to_do(tmp_path: Path):
    (tmp_path / "bad.png").write_bytes(b"not an image")
    for name in ("bad.png", "none.png"):
        with pytest.raises(NightshiftError) as caught:
            read_image(str(tmp_path / name))
        assert name in str(caught.value)
        assert ";" in str(caught.value)
