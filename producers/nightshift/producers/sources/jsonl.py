"""JSON Lines: one object a line."""

import json
from collections.abc import Iterator
from typing import Any, NoReturn

from nightshift.producers.sources.lines import MAX_LINE_BYTES, numbered_lines, opened
from nightshift.producers.sources.rows import BadRow, RawRow, Row
from nightshift.schema.errors import InputError
from nightshift.stores.addresses import stem_of
from nightshift.stores.listing import ListedFile

__all__ = ["parse_object", "read_jsonl"]


def read_jsonl(file: ListedFile) -> Iterator[Row]:
    """Rows of a `.jsonl` file.

    In an image folder's `metadata.jsonl`, `file_name` stands for `image`, and its stem for `id`.
    """
    describes_folder = file.name.rpartition("/")[2].startswith("metadata.jsonl")
    with opened(file.address) as lines:
        for number, line in numbered_lines(lines):
            if line is not None and not line.strip():
                continue
            position = f"{file.name}:{number}"
            try:
                fields = parse_object(line)
            except InputError as error:
                message = f"{position}: {error.message}"
                yield BadRow(position=position, reason=error.reason, message=message)
            else:
                default_id = _name_image(fields) if describes_folder else None
                yield RawRow(
                    position=position, fields=fields, folder=file.folder, default_id=default_id
                )


def parse_object(line: bytes | None) -> dict[str, Any]:
    """One JSON object; control characters inside strings are let through, to be judged later.

    Raises:
        InputError: `line_too_long` (for None), `not_utf8` or `malformed_line`.
    """
    if line is None:
        raise InputError(
            f"the line has over {MAX_LINE_BYTES >> 20} MiB; is a line end missing?", "line_too_long"
        )
    try:
        value = _DECODER.decode(line.decode())
    except UnicodeDecodeError as error:
        raise InputError(
            f"byte {error.start} of the line is not UTF-8; convert the file", "not_utf8"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"the line is not JSON: {error}", "malformed_line") from error
    if not isinstance(value, dict):
        raise InputError(
            f"the line holds a {type(value).__name__}; write one object, {{…}}, a line",
            "malformed_line",
        )
    return value


def _reject(constant: str) -> NoReturn:
    msg = f"{constant} is no JSON value"
    raise ValueError(msg)


_DECODER = json.JSONDecoder(strict=False, parse_constant=_reject)


def _name_image(fields: dict[str, Any]) -> str | None:
    if "file_name" in fields and "image" not in fields:
        fields["image"] = fields.pop("file_name")
    image = fields.get("image")
    return stem_of(image) if isinstance(image, str) and image.strip("./") else None
