"""The image formats that are read: one list for the import and for the decoder."""

from collections.abc import Mapping
from pathlib import PurePosixPath

from nightshift.stores.files.packed_formats import packed_format

__all__ = ["DECODED_FORMATS", "describe_undecodable", "is_image_name", "looks_like_image"]

#: Pillow's name of each format that is decoded → the extensions of its files. Other formats of
#: Pillow are refused: it hands EPS to Ghostscript, and rare decoders are tested less for attacks.
DECODED_FORMATS: Mapping[str, tuple[str, ...]] = {
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
#: Extensions of images that are not decoded. Such a file becomes a row that fails with a remedy.
_UNDECODED_SUFFIXES = (
    ".heic", ".heif", ".hif", ".jxl", ".svg", ".svgz", ".psd", ".psb", ".tga", ".eps", ".exr",
    ".hdr", ".dds", ".pcx", ".xcf", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2",
)  # fmt: skip
_IMAGE_SUFFIXES = frozenset(_UNDECODED_SUFFIXES).union(*DECODED_FORMATS.values())

_CONVERT = "convert it to JPEG or PNG"
#: First bytes, description and remedy of files that are not decoded.
_UNDECODED_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"8BPS", "a Photoshop file", _CONVERT),
    (b"\xff\x0a", "a JPEG XL image", _CONVERT),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL image", _CONVERT),
    (b"%!PS", "PostScript", _CONVERT),
    (b"%PDF", "a PDF file", "convert its pages to JPEG or PNG"),
    (b"<svg", "an SVG drawing", _CONVERT),
    (b"<!doctype html", "a web page", "name the image itself; the server may ask for a login"),
    (b"<html", "a web page", "name the image itself; the server may ask for a login"),
    (b"version https://git-lfs", "a pointer of git-lfs", "fetch the image: `git lfs pull`"),
)
_IMAGE_SIGNATURES = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\x00", b"MM\x00*",
    b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51", b"8BPS", b"\x00\x00\x00\x0cJXL ",
)  # fmt: skip
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")


def is_image_name(name: str) -> bool:
    """True if a file's extension, in upper or lower case, is that of an image."""
    return PurePosixPath(name).suffix.lower() in _IMAGE_SUFFIXES


def looks_like_image(data: bytes) -> bool:
    """True if bytes begin as an image file does, whatever its name."""
    return (
        data.startswith(_IMAGE_SIGNATURES)
        or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")
        or (data[4:8] == b"ftyp" and data[8:12] in (*_HEIF_BRANDS, *_AVIF_BRANDS))
    )


def describe_undecodable(data: bytes) -> tuple[str, str] | None:
    """Description and remedy of bytes that no decoder reads; None for an unknown format."""
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        return "a HEIC image, which is not read", f"{_CONVERT} (`heif-convert`, or `magick`)"
    head = data[:512].lstrip().lower()
    if head.startswith(b"<?xml") and b"<svg" in head:
        head = b"<svg"
    for signature, description, remedy in _UNDECODED_SIGNATURES:
        if data.startswith(signature) or head.startswith(signature.lower()):
            return description, remedy
    packed = packed_format(data)
    return (packed.description, packed.remedy) if packed and packed.is_container else None
