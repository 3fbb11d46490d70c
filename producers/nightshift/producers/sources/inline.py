"""Images that stand in a row as text: data URIs and base64."""

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from nightshift.producers.sources.rows import EmbeddedImage
from nightshift.schema.errors import InputError
from nightshift.stores.files.image_formats import looks_like_image

__all__ = ["from_base64", "inline_image"]

_DATA_URI = re.compile(r"data:(?P<type>[^,]{0,200}),", re.IGNORECASE)
# Shorter than any image, longer than any name of a file that has no dot.
_LEAST_CHARS = 64
_EXAMINED_BYTES = 4096
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]+=*\s*")


def inline_image(value: str) -> EmbeddedImage | None:
    """The image that a text is, not names; None where it is none.

    Raises:
        InputError: `image_unreadable` where a data URI is damaged.
    """
    if value[:5].lower() == "data:":
        return _from_data_uri(value)
    if len(value) < _LEAST_CHARS or not _BASE64.fullmatch(value[:_EXAMINED_BYTES]):
        return None
    try:
        begins_so = looks_like_image(_decoded(value[:60]))
    except binascii.Error:
        return None
    return from_base64(value) if begins_so else None


def from_base64(value: str) -> EmbeddedImage:
    """The bytes of an image written as base64, of either alphabet, padded or not.

    Raises:
        InputError: `image_unreadable`.
    """
    try:
        return EmbeddedImage(data=_decoded(value))
    except binascii.Error as error:
        raise InputError(
            f"the image in the row is damaged ({error}); write its bytes as base64",
            "image_unreadable",
        ) from error


def _from_data_uri(value: str) -> EmbeddedImage:
    head = _DATA_URI.match(value)
    if head is None:
        raise InputError(
            "the image in the row is no data URI; write data:image/png;base64,… or a path",
            "image_unreadable",
        )
    body = value[head.end() :]
    if not head["type"].lower().rstrip().endswith(";base64"):
        return EmbeddedImage(data=unquote_to_bytes(body))
    return from_base64(unquote_to_bytes(body).decode("latin-1") if "%" in body else body)


def _decoded(value: str) -> bytes:
    try:
        plain = "".join(value.split()).rstrip("=").encode("ascii").translate(_ONE_ALPHABET)
    except UnicodeEncodeError as error:
        raise binascii.Error("it holds letters that base64 has not") from error
    return base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)


_ONE_ALPHABET = bytes.maketrans(b"-_", b"+/")
