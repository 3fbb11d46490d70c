"""JSON Lines: one object a line."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NoReturn

from nightshift.producers.sources.lines import MAX_LINE_BYTES, numbered_lines, opened
from nightshift.producers.sources.rows import BadRow, RawRow, Row
from nightshift.schema.errors import InputError
from nightshift.stores.files.globs import ListedFile

__all__ = ["parse_object", "read_jsonl"]


def read_jsonl(file: ListedFile) -> Iterator[Row]:
    """Rows of a `.jsonl` file."""
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
                yield RawRow(position=position, fields=fields, folder=file.folder)


def parse_object(line: bytes | None) -> dict[str, Any]:
    """One JSON object; control characters inside strings are let through, to be judged later.

    Raises:
        InputError: `line_too_long` (for None), `not_utf8` or `malformed_line`.
    """
    if line is None:
        raise InputError(
            f"the line has over {MAX_LINE_BYTES >> 20} MiB; is a line end missing?", "line_too_long"
        )
    if _n_values(line) > _MAX_VALUES:
        raise InputError(
            f"the line has over {_MAX_VALUES:,} values; leave some out", "line_too_long"
        )
    try:
        value = _DECODER.decode(line.removeprefix(_BOM).decode())
    except UnicodeDecodeError as error:
        raise InputError(
            f"byte {error.start} of the line is not UTF-8; convert the file", "not_utf8"
        ) from error
    except (ValueError, RecursionError) as error:
        # Python's remedy for a number that is too long is none here.
        reason = str(error).partition("; use sys.")[0]
        raise InputError(
            f"the line is not JSON: {reason:.300}; write one object, {{…}}, a line",
            "malformed_line",
        ) from error
    if not isinstance(value, dict):
        raise InputError(
            f"the line holds a {type(value).__name__}; write one object, {{…}}, a line",
            "malformed_line",
        )
    if isinstance(value, _Repeated):
        raise InputError(
            f"the field {value.name[:200]!r} stands there twice; leave one", "malformed_line"
        )
    return value


class _Repeated(dict[str, Any]):
    """An object with two fields of one name."""

    name = ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) == len(pairs):
        return fields
    repeated = _Repeated(fields)
    ((repeated.name, _),) = Counter(name for name, _ in pairs).most_common(1)
    return repeated


def _n_values(line: bytes) -> int:
    """No fewer values than a line has: they take far more memory than the line."""
    signs = line.count(b",") + line.count(b"[") + line.count(b"{")
    if signs <= _MAX_VALUES:
        return signs
    # Not those in texts.
    plain = _STRING.sub(b"", line)
    return plain.count(b",") + plain.count(b"[") + plain.count(b"{")


def _reject(constant: str) -> NoReturn:
    msg = f"{constant} is no JSON value, write null"
    raise ValueError(msg)


_MAX_VALUES = 1_000_000
_BOM = b"\xef\xbb\xbf"
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_DECODER = json.JSONDecoder(strict=False, parse_constant=_reject, object_pairs_hook=_object)
