"""From a row's fields to an id, ordered parts and metadata, each checked."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Self

from nightshift.producers.sources.rows import EmbeddedImage, RawRow
from nightshift.schema.errors import ConfigurationError, InputError
from nightshift.schema.records import ImagePart, TextPart
from nightshift.stores.addresses import resolve_beside

__all__ = [
    "MAX_ID_CHARS",
    "MAX_TEXT_BYTES",
    "Draft",
    "FieldNames",
    "RawPart",
    "draft_of",
    "identity_of",
]

MAX_ID_CHARS = 1024
#: Two ids make one key of an index in Postgres, which holds 2,700 bytes.
_MAX_ID_BYTES = 1300
MAX_TEXT_BYTES = 1_000_000
_MAX_DEPTH = 32

RawPart = TextPart | ImagePart | EmbeddedImage


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldNames:
    """Which fields of a row hold what; a field that is named here must be there in every row."""

    id: str | None = None
    text: tuple[str, ...] = ()
    image: tuple[str, ...] = ()
    parts: str | None = None

    @classmethod
    def parse(cls, pairs: tuple[str, ...]) -> Self:
        """From `text=title`, `image=photo_path`, …; text and image may be given several times.

        Raises:
            ConfigurationError: On anything else.
        """
        named: dict[str, list[str]] = {"id": [], "text": [], "image": [], "parts": []}
        for pair in pairs:
            target, equals, field = pair.partition("=")
            if target not in named or not equals or not field:
                raise ConfigurationError(
                    f"--map {pair} is not understood; write id=, text=, image= or parts= and the "
                    "field of the source, such as --map text=title"
                )
            named[target].append(field)
        if len(named["id"]) > 1 or len(named["parts"]) > 1:
            raise ConfigurationError("--map names two fields for id or for parts; leave one")
        return cls(
            id=next(iter(named["id"]), None),
            text=tuple(named["text"]),
            image=tuple(named["image"]),
            parts=next(iter(named["parts"]), None),
        )

    def required(self) -> tuple[str, ...]:
        """The fields that were named."""
        single = tuple(name for name in (self.id, self.parts) if name is not None)
        return (*single, *self.text, *self.image)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A record whose images have not been looked at."""

    position: str
    id: str
    parts: tuple[RawPart, ...]
    #: A JSON object that Postgres takes as it is.
    metadata: str


def draft_of(row: RawRow, names: FieldNames) -> Draft:
    """Find id, parts and metadata in a row, and check them.

    Raises:
        InputError: With a reason; `subject_id` is set once the id is known to be good.
    """
    missing = [name for name in names.required() if name not in row.fields]
    if missing:
        raise InputError(
            f"there is no field {missing[0]!r}, only {_list(row)}; correct --map, or give the row "
            "that field (it may be null)",
            "missing_field",
        )
    identity = identity_of(row.fields.get(names.id or "id"), row.default_id)
    try:
        parts, part_fields = _parts(row, names)
        if not parts:
            raise _nothing(row, names)
        used = {names.id or "id", *part_fields}
        others = {name: value for name, value in row.fields.items() if name not in used}
        return Draft(position=row.position, id=identity, parts=parts, metadata=_metadata(others))
    except InputError as error:
        raise InputError(error.message, error.reason, identity) from error


def identity_of(value: object, default: str | None = None) -> str:
    """A value as an id, if it can be one.

    Raises:
        InputError: `missing_id`, `bad_id`, `id_too_long`, `nul_character` or `not_utf8`.
    """
    if value is None or value == "":
        value = default
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is None:
        raise InputError(
            "the row has no id; give it one, or name the field with --map id=FIELD", "missing_id"
        )
    if not isinstance(value, str):
        raise InputError(f"the id is a {_kind(value)}; make it a string", "bad_id")
    if not value.strip():
        raise InputError("the id is blank; give the row one", "missing_id")
    size = len(_checked(value, "the id"))
    if len(value) > MAX_ID_CHARS or size > _MAX_ID_BYTES:
        raise InputError(
            f"the id has {len(value)} characters ({size} bytes), at most {MAX_ID_CHARS} "
            f"({_MAX_ID_BYTES}) are taken; shorten it",
            "id_too_long",
        )
    return value


def _parts(row: RawRow, names: FieldNames) -> tuple[tuple[RawPart, ...], tuple[str, ...]]:
    listed = row.fields.get(names.parts or "parts")
    if listed is not None:
        if not isinstance(listed, list):
            raise InputError(f"parts is a {_kind(listed)}; make it a list", "malformed_parts")
        parts = tuple(_listed_part(part, row.folder) for part in listed)
        return parts, (names.parts or "parts",)
    images, texts = names.image or ("image",), names.text or ("text",)
    parts = (
        *(_image(value, row.folder) for value in _given(row, images) if value != ""),
        *(_text(value) for value in _given(row, texts)),
    )
    return parts, (*images, *texts)


def _given(row: RawRow, names: tuple[str, ...]) -> Iterator[Any]:
    for name in names:
        value = row.fields.get(name)
        if isinstance(value, list):
            yield from value
        elif value is not None:
            yield value


def _listed_part(part: object, folder: str) -> RawPart:
    # Parquet gives every struct all its fields, the absent ones as null.
    given = (
        {name: value for name, value in part.items() if value is not None}
        if isinstance(part, dict)
        else {}
    )
    if given.keys() == {"text"}:
        return _text(given["text"])
    if given.keys() == {"image"}:
        return _image(given["image"], folder)
    raise InputError(
        'a part is neither {"text": …} nor {"image": …}; make it one of them', "malformed_parts"
    )


def _text(value: object) -> TextPart:
    if not isinstance(value, str):
        raise InputError(
            f"the text is a {_kind(value)}; make it a string or a list of strings, or name another "
            "field with --map text=FIELD",
            "text_not_string",
        )
    if not value.strip():
        raise InputError("the text is empty; write one, or make the field null", "empty_text")
    size = len(_checked(value, "the text"))
    if size > MAX_TEXT_BYTES:
        raise InputError(
            f"the text has {size:,} bytes, at most {MAX_TEXT_BYTES:,} are taken; shorten it",
            "text_too_long",
        )
    return TextPart(text=value)


def _image(value: object, folder: str) -> ImagePart | EmbeddedImage:
    if isinstance(value, dict) and value.keys() <= {"bytes", "path"}:
        value = value.get("bytes") or value.get("path")
    if isinstance(value, EmbeddedImage):
        return value
    if isinstance(value, bytes):
        return EmbeddedImage(data=value)
    if not isinstance(value, str) or not value.strip():
        raise InputError(
            f"the image is a {_kind(value)}; make it a path or URL, or name another field with "
            "--map image=FIELD",
            "image_not_path",
        )
    _checked(value, "the image's path")
    return ImagePart(uri=resolve_beside(folder, value))


def _metadata(fields: dict[str, Any]) -> str:
    if not fields:
        return "{}"
    encoded = json.dumps(_clean(fields, _MAX_DEPTH), ensure_ascii=False)
    if len(encoded) > MAX_TEXT_BYTES:
        raise InputError(
            f"the other fields have {len(encoded):,} characters, at most {MAX_TEXT_BYTES:,} are "
            "taken; leave some out",
            "metadata_too_long",
        )
    return encoded


def _clean(value: object, depth: int) -> Any:  # noqa: ANN401 - any JSON value
    match value:
        case str():
            _checked(value, "the metadata")
        case Mapping() | list() | tuple():
            return _clean_nested(value, depth)
        case float() if not isfinite(value):
            return None
        case bytes() | EmbeddedImage():
            # Pictures and vectors; they have no place in JSON, nor a reader there.
            return None
        case None | bool() | int() | float():
            pass
        case _:
            return _clean(str(value), depth)
    return value


def _clean_nested(value: Mapping[Any, Any] | Sequence[Any], depth: int) -> Any:  # noqa: ANN401
    if depth == 0:
        raise InputError(
            f"the metadata is nested over {_MAX_DEPTH} levels deep; flatten it", "metadata_too_deep"
        )
    if isinstance(value, Mapping):
        return {_clean(str(name), depth): _clean(inner, depth - 1) for name, inner in value.items()}
    return [_clean(inner, depth - 1) for inner in value]


def _checked(value: str, what: str) -> bytes:
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


def _nothing(row: RawRow, names: FieldNames) -> InputError:
    sought = {*(names.text or ("text",)), *(names.image or ("image",)), names.parts or "parts"}
    if sought & row.fields.keys():
        return InputError("the row has neither text nor image; give it one", "no_content")
    return InputError(
        f"there is no field {' or '.join(sorted(sought))}, only {_list(row)}; name one with "
        "--map text=FIELD or --map image=FIELD",
        "missing_field",
    )


def _list(row: RawRow) -> str:
    names = ", ".join(repr(name) for name in list(row.fields)[:12])
    return names[:300] or "none"


_KINDS = {
    dict: "nested object",
    bool: "truth value",
    int: "number",
    float: "number",
    str: "blank",
    type(None): "null",
}


def _kind(value: object) -> str:
    return _KINDS.get(type(value), type(value).__name__)
