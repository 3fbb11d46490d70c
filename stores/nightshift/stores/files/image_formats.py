"""Which image formats are read: one list for whoever looks for images and for the decoder."""

from collections.abc import Mapping
from pathlib import PurePosixPath

__all__ = ["DECODED", "is_image_name", "kind_of_bytes", "looks_like_image"]

#: Pillow's name of each format that is decoded → the extensions of its files. An allow-list: Pillow
#: hands EPS to Ghostscript, and rare decoders are rarely attacked in tests.
DECODED: Mapping[str, tuple[str, ...]] = {
    "AVIF": (".avif", ".avifs"),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "ICO": (".ico",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "PNG": (".png", ".apng"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
# Images all the same: each is taken for a row, and fails with what to do about it.
_NOT_DECODED = (
    ".heic", ".heif", ".hif", ".jxl", ".svg", ".svgz", ".psd", ".psb", ".tga", ".eps", ".exr",
    ".hdr", ".dds", ".pcx", ".xcf", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2",
)  # fmt: skip
_SUFFIXES = frozenset(suffix for suffixes in DECODED.values() for suffix in suffixes) | frozenset(
    _NOT_DECODED
)

_AS_JPEG = "convert it to JPEG or PNG"
#: First bytes → what the file is, and what to do with it.
_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (b"8BPS", "a Photoshop file", _AS_JPEG),
    (b"\xff\x0a", "a JPEG XL image", _AS_JPEG),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL image", _AS_JPEG),
    (b"%!PS", "PostScript", _AS_JPEG),
    (b"%PDF", "a PDF file", "convert its pages to JPEG or PNG"),
    (b"<svg", "an SVG drawing", _AS_JPEG),
    (b"<!doctype html", "a web page", "name the image itself; the server may ask for a login"),
    (b"<html", "a web page", "name the image itself; the server may ask for a login"),
    (b"version https://git-lfs", "a pointer of git-lfs", "fetch the image: `git lfs pull`"),
    (b"PK\x03\x04", "a zip file", "unpack it"),
    (b"\x1f\x8b", "packed with gzip", "unpack it"),
)
_IMAGE_BEGINNINGS = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\x00", b"MM\x00*",
    b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51", b"8BPS", b"\x00\x00\x00\x0cJXL ",
)  # fmt: skip
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")


def is_image_name(name: str) -> bool:
    """Whether a file is taken for an image, by its extension in any case."""
    return PurePosixPath(name).suffix.lower() in _SUFFIXES


def looks_like_image(data: bytes) -> bool:
    """Whether bytes begin as a file of an image does, whatever it is called."""
    return (
        data.startswith(_IMAGE_BEGINNINGS)
        or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")
        or (data[4:8] == b"ftyp" and data[8:12] in (*_HEIF_BRANDS, *_AVIF_BRANDS))
    )


def kind_of_bytes(data: bytes) -> tuple[str, str] | None:
    """What bytes are that no decoder takes, and what to do with them; None where nobody knows."""
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        return "a HEIC image, which is not read", f"{_AS_JPEG} (`heif-convert`, or `magick`)"
    head = data[:512].lstrip().lower()
    if head.startswith(b"<?xml") and b"<svg" in head:
        head = b"<svg"
    for beginning, what, remedy in _BEGINNINGS:
        if data.startswith(beginning) or head.startswith(beginning.lower()):
            return what, remedy
    return None
