"""Addresses of images, as rows write them: paths and URLs."""

import re

from nightshift.producers.sources.metadata import checked
from nightshift.schema.errors import InputError
from nightshift.stores.files.addresses import MemberAddress, resolve_beside

__all__ = ["image_address"]

#: No system has longer paths; web addresses are shorter, too.
_MAX_PATH_CHARS = 8192
_WINDOWS = re.compile(r"[A-Za-z]:\\")
_NO_PROTOCOL = re.compile(r"//[\w-]+(\.[\w-]+)*\.[a-z]{2,}/")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def image_address(path: str, folder: str) -> str:
    """The address that a row's path or URL names.

    Args:
        path: As the row has it.
        folder: What a relative path is relative to.

    Raises:
        InputError: `image_not_path`, `image_missing`, `nul_character` or `not_utf8`.
    """
    if len(path) > _MAX_PATH_CHARS:
        raise InputError(
            f"the image is a text of {len(path):,} characters, which is no path, no URL, and no "
            "base64 of an image; write one of these",
            "image_not_path",
        )
    if _WINDOWS.match(path):
        raise InputError(
            f"{path} is a path of Windows; write it relative to the source, with /", "image_missing"
        )
    if _NO_PROTOCOL.match(path):
        raise InputError(
            f"{path} is a URL without its protocol; write https:{path}", "image_missing"
        )
    address = resolve_beside(folder, _SCHEME.sub(lambda match: match[0].lower(), path))
    if address.startswith("tar://") and MemberAddress.parse(address) is None:
        raise InputError(
            "the image's address names no place in a tar; write "
            "tar://NAME?offset=BYTES&size=BYTES::TAR",
            "image_missing",
        )
    checked(address, "the image's path")
    return address
