"""Ids in TREC files, where white space separates fields: percent-encoded, and back."""

import re
from urllib.parse import unquote

from nightshift.schema.display import visible

__all__ = ["from_trec_id", "to_trec_id"]

_EMPTY = "%"
_ENCODED = re.compile("%[0-9A-F]{2}")


def to_trec_id(external_id: str) -> str:
    """One word for an id, another for every other id.

    `%`, white space of any kind, controls and characters of no width become `%` and two hex digits
    a byte of UTF-8; the empty id becomes a single `%`.
    """
    return "".join(map(_encoded, external_id)) or _EMPTY


def from_trec_id(word: str) -> str:
    """The id that `to_trec_id` makes this word of; the word itself where it makes it of none.

    So ids of other people's files that hold a `%` stay, such as `Caf%C3%A9` or `50%`.
    """
    if word == _EMPTY:
        return ""
    if not _ENCODED.search(word):
        return word
    decoded = unquote(word, errors="surrogateescape")
    return decoded if to_trec_id(decoded) == word else word


def _encoded(sign: str) -> str:
    if sign != "%" and not sign.isspace() and visible(sign) == sign:
        return sign
    return "".join(f"%{byte:02X}" for byte in sign.encode("utf-8", "surrogatepass"))
