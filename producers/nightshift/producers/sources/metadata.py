"""A row's other fields as a JSON object that Postgres takes."""

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from nightshift.producers.sources.rows import EmbeddedImage
from nightshift.schema.errors import InputError

__all__ = ["MAX_TEXT_BYTES", "checked", "encoded"]

MAX_TEXT_BYTES = 1_000_000
_MAX_DEPTH = 32
#: Python writes no whole number of over 4,300 digits.
_MAX_BITS = 14_000


def encoded(fields: Mapping[str, Any]) -> str:
    """The fields as JSON; a value that JSON has no place for becomes a text or null.

    Raises:
        InputError: `metadata_too_long`, `metadata_too_deep`, `nul_character` or `not_utf8`.
    """
    if not fields:
        return "{}"
    text = json.dumps(_clean(fields, _MAX_DEPTH), ensure_ascii=False)
    if len(text) > MAX_TEXT_BYTES:
        raise _too_long(len(text))
    return text


def checked(value: str, what: str) -> bytes:
    """A text as UTF-8.

    Raises:
        InputError: `nul_character` or `not_utf8`.
    """
    if "\x00" in value:
        raise InputError(
            f"{what} holds a NUL character, which Postgres cannot store; remove it", "nul_character"
        )
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{what} is not UTF-8 at character {error.start}; convert the source", "not_utf8"
        ) from error


def _too_long(n_chars: int) -> InputError:
    return InputError(
        f"the other fields have {n_chars:,} characters, at most {MAX_TEXT_BYTES:,} are taken; "
        "leave some out",
        "metadata_too_long",
    )


def _clean(value: object, depth: int) -> Any:  # noqa: ANN401 - any JSON value
    match value:
        case str():
            if len(value) > MAX_TEXT_BYTES:
                raise _too_long(len(value))
            checked(value, "the metadata")
        case Mapping() | list() | tuple():
            return _clean_nested(value, depth)
        case bool() | None:
            pass
        case float() if not isfinite(value):
            return None
        case int() if value.bit_length() > _MAX_BITS:
            return None
        case bytes() | EmbeddedImage():
            # Images and vectors; they have no place in JSON, nor a reader there.
            return None
        case int() | float():
            pass
        case _:
            return _clean(_spelt(value), depth)
    return value


def _spelt(value: object) -> str | None:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - whatever a library's type raises, the cell is odd, not the row
        return None


def _clean_nested(value: Mapping[Any, Any] | Sequence[Any], depth: int) -> Any:  # noqa: ANN401
    if depth == 0:
        raise InputError(
            f"the metadata is nested over {_MAX_DEPTH} levels deep; flatten it", "metadata_too_deep"
        )
    if isinstance(value, Mapping):
        return {_clean(str(name), depth): _clean(inner, depth - 1) for name, inner in value.items()}
    return [_clean(inner, depth - 1) for inner in value]
