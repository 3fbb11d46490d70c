"""From a row's fields to an id, ordered parts and metadata, each checked."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from nightshift.producers.sources.image_addresses import image_address
from nightshift.producers.sources.inline import from_base64, inline_image
from nightshift.producers.sources.metadata import MAX_TEXT_BYTES, checked, encoded
from nightshift.producers.sources.rows import EmbeddedImage, RawRow
from nightshift.schema.errors import ConfigurationError, InputError
from nightshift.schema.records import ImagePart, TextPart

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
#: A row of more texts and images is an accident, and its images would be read for hours.
_MAX_PARTS = 1000

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
    named = names.id or "id"
    if named not in row.fields and row.default_id is None:
        raise InputError(
            f"the row has no id: there is no field {named!r}, only {_list(row)}; name the field "
            "with --map id=FIELD",
            "missing_id",
        )
    identity = identity_of(row.fields.get(named), row.default_id)
    try:
        parts, part_fields = _parts(row, names)
        if not parts:
            raise _nothing(row, names)
        if len(parts) > _MAX_PARTS:
            raise _too_many(len(parts))
        used = {names.id or "id", *part_fields}
        others = {name: value for name, value in row.fields.items() if name not in used}
        return Draft(position=row.position, id=identity, parts=parts, metadata=encoded(others))
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
        # Python writes no number of over 4,300 digits.
        value = str(value) if value.bit_length() < 8 * _MAX_ID_BYTES else "0" * _MAX_ID_BYTES * 2
    if value is None:
        raise InputError(
            "the row has no id; give it one, or name the field with --map id=FIELD", "missing_id"
        )
    if not isinstance(value, str):
        raise InputError(f"the id is a {_kind(value)}; make it a string", "bad_id")
    if not value.strip():
        raise InputError("the id is blank; give the row one", "missing_id")
    size = len(checked(value, "the id"))
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
    shown = tuple(
        _image(value, row.folder) for value in _given(row, images) if not _is_blank(value)
    )
    # A CSV has no null: beside an image, an empty cell is no text.
    read = tuple(_text(value) for value in _given(row, texts) if not (shown and _is_blank(value)))
    return (*shown, *read), (*images, *texts)


def _given(row: RawRow, names: tuple[str, ...]) -> Iterator[Any]:
    for name in names:
        value = row.fields.get(name)
        if isinstance(value, list):
            yield from (inner for inner in value if not _is_null(inner))
        elif not _is_null(value):
            yield value


def _is_null(value: object) -> bool:
    """Tells whether a value is none, as Parquet files may write it: a struct of nulls, too."""
    if isinstance(value, dict):
        return bool(value) and all(inner is None for inner in value.values())
    return value is None


def _is_blank(value: object) -> bool:
    return isinstance(value, str) and not value.strip()


def _listed_part(part: object, folder: str) -> RawPart:
    # Parquet gives every struct all its fields, the absent ones as null.
    given = (
        {name: value for name, value in part.items() if not _is_null(value)}
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
    size = len(checked(value, "the text"))
    if size > MAX_TEXT_BYTES:
        raise InputError(
            f"the text has {size:,} bytes, at most {MAX_TEXT_BYTES:,} are taken; shorten it",
            "text_too_long",
        )
    return TextPart(text=value)


def _image(value: object, folder: str) -> ImagePart | EmbeddedImage:
    if isinstance(value, dict) and value.keys() <= {"bytes", "path"}:
        data = value.get("bytes")
        if isinstance(data, str) and data.strip():
            # JSON has no bytes.
            return inline_image(data) or from_base64(data)
        value = value.get("path") or data if data in (None, "", b"") else data
    if isinstance(value, EmbeddedImage):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return EmbeddedImage(data=bytes(value))
    if not isinstance(value, str) or not value.strip():
        raise InputError(
            f"the image is a {_kind(value)}; make it a path or URL, or name another field with "
            "--map image=FIELD",
            "image_not_path",
        )
    checked(value, "the image's path")
    return inline_image(value) or ImagePart(uri=image_address(value, folder))


def _nothing(row: RawRow, names: FieldNames) -> InputError:
    sought = {*(names.text or ("text",)), *(names.image or ("image",)), names.parts or "parts"}
    if sought & row.fields.keys():
        return InputError("the row has neither text nor image; give it one", "no_content")
    return InputError(
        f"there is no field {' or '.join(sorted(sought))}, only {_list(row)}; name one with "
        "--map text=FIELD or --map image=FIELD",
        "missing_field",
    )


def _too_many(n_parts: int) -> InputError:
    return InputError(
        f"the row has {n_parts:,} texts and images, at most {_MAX_PARTS:,} are taken; split it",
        "too_many_parts",
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
    list: "list",
    type(None): "null",
}


def _kind(value: object) -> str:
    return _KINDS.get(type(value), type(value).__name__)
