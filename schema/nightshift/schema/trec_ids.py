"""Percent-encoding of ids in TREC files, where white space separates fields."""

import re
from urllib.parse import unquote

from nightshift.schema.display import visible

__all__ = ["from_trec_id", "to_trec_id"]

_EMPTY = "%"
_ENCODED = re.compile("%[0-9A-F]{2}")


def to_trec_id(external_id: str) -> str:
    """Encode an id as one word; different ids give different words.

    `%`, white space, control characters and invisible characters become `%` and two hex digits per
    UTF-8 byte; the empty id becomes a single `%`.
    """
    return "".join(map(_encoded, external_id)) or _EMPTY


def from_trec_id(word: str) -> str:
    """Decode a word of `to_trec_id`; any other word is returned as it is.

    So ids with a `%` in files of other programs stay, such as `Caf%C3%A9` or `50%`.
    """
    if word == _EMPTY:
        return ""
    if not _ENCODED.search(word):
        return word
    decoded = unquote(word, errors="surrogateescape")
    return decoded if to_trec_id(decoded) == word else word


def _encoded(char: str) -> str:
    if char != "%" and not char.isspace() and visible(char) == char:
        return char
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))
