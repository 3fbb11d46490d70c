"""CSV and TSV: a header, then one row a record, quoted as spreadsheets do."""

import csv
from collections.abc import Iterator
from typing import BinaryIO

from nightshift.producers.sources.lines import MAX_LINE_BYTES, numbered_lines, opened
from nightshift.producers.sources.rows import BadRow, RawRow, Row
from nightshift.schema.errors import InputError
from nightshift.stores.listing import ListedFile

__all__ = ["read_delimited"]


def read_delimited(file: ListedFile, delimiter: str) -> Iterator[Row]:
    """Rows of a CSV (`,`) or TSV (tab) file; the first line names the columns.

    Raises:
        InputError: When two columns have one name.
    """
    header: list[str] | None = None
    with opened(file.address) as lines:
        for number, values in _records(lines, delimiter):
            position = f"{file.name}:{number}"
            if isinstance(values, InputError):
                message = f"{position}: {values.message}"
                yield BadRow(position=position, reason=values.reason, message=message)
            elif header is None:
                header = _checked_header(file, values)
            elif len(values) != len(header):
                message = (
                    f"{position}: {len(values)} fields where the header has {len(header)}; quote a "
                    "field that holds the separator"
                )
                yield BadRow(position=position, reason="ragged_row", message=message)
            else:
                fields = dict(zip(header, values, strict=True))
                yield RawRow(position=position, fields=fields, folder=file.folder)


def _records(lines: BinaryIO, delimiter: str) -> Iterator[tuple[int, list[str] | InputError]]:
    # The limit is one for the whole process; a text of 10 MB must arrive to be refused by name.
    csv.field_size_limit(MAX_LINE_BYTES)
    too_long: list[int] = []

    def decoded() -> Iterator[str]:
        for number, line in numbered_lines(lines):
            if line is None:
                too_long.append(number)
            # Undecodable bytes become lone surrogates, so that they spoil their own row only.
            yield "" if line is None else line.decode(errors="surrogateescape")

    reader = csv.reader(decoded(), delimiter=delimiter, strict=True)
    while True:
        try:
            values = next(reader, None)
        except csv.Error as error:
            yield reader.line_num, InputError(f"{error}; check the quotes", "malformed_line")
            continue
        while too_long:
            yield (
                too_long.pop(),
                InputError(f"the line has over {MAX_LINE_BYTES >> 20} MiB", "line_too_long"),
            )
        if values is None:
            return
        if values:
            yield reader.line_num, values


def _checked_header(file: ListedFile, names: list[str]) -> list[str]:
    header = [name.strip() for name in names]
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise InputError(
            f"{file.name} has two columns {twice!r}; rename one of them", "malformed_header"
        )
    return header
