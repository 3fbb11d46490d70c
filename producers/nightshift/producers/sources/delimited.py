"""CSV and TSV: a header, then one row a record, quoted as spreadsheets do."""

import csv
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Self

from nightshift.producers.sources.lines import MAX_LINE_BYTES, numbered_lines, opened
from nightshift.producers.sources.rows import BadRow, RawRow, Row
from nightshift.producers.sources.text_checks import check_header
from nightshift.schema.errors import InputError
from nightshift.stores.files.globs import ListedFile

__all__ = ["read_delimited"]

#: Of a record: what stands in quotes may go on for lines, but what never ends must not be kept.
_MAX_LINES = 100_000
_MAX_FIELDS = 1_000_000


def read_delimited(file: ListedFile, delimiter: str) -> Iterator[Row]:
    """Rows of a CSV (`,`) or TSV (tab) file; the first line names the columns.

    A quote that is not closed, or closed by the wrong one, swallows the lines up to there. They are
    read again, each by itself; where they are no rows then, each of them is a bad row.

    Raises:
        InputError: When the header cannot be read, or two columns have one name.
    """
    header: list[str] | None = None
    with opened(file.address) as lines:
        records = _Records(lines, delimiter)
        for number, values in records:
            position = f"{file.name}:{number}"
            if isinstance(values, InputError):
                if header is None:
                    # Quotes beside another separator look wrong: that is what to say.
                    _checked_header(file, [records.line()], delimiter)
                    raise InputError(f"{position}: {values.message}", values.reason)
                message = f"{position}: {values.message}"
                yield BadRow(position=position, reason=values.reason, message=message)
            elif header is None:
                header = _checked_header(file, values, delimiter)
                records.width = len(header)
            else:
                fields = dict(zip(header, values, strict=True))
                yield RawRow(position=position, fields=fields, folder=file.folder)


@dataclass(slots=True)
class _Lines:
    """Lines of a file that can be given back, and those of the record that is being read."""

    numbered: Iterator[tuple[int, bytes | None]]
    delimiter: bytes
    n_chars: int = 0
    taken: list[tuple[int, str]] = field(default_factory=list)
    too_long: list[int] = field(default_factory=list)
    _repeated: deque[tuple[int, str]] = field(default_factory=deque)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        if self._repeated:
            self.taken.append(self._repeated.popleft())
        else:
            number, line = next(self.numbered)
            if line is not None and line.count(self.delimiter) > _MAX_FIELDS:
                line = None
            if line is None:
                self.too_long.append(number)
            # Undecodable bytes become lone surrogates, so that they spoil their own row only.
            text = "" if line is None else line.decode(errors="surrogateescape")
            self.taken.append((number, text))
        self.n_chars += len(self.taken[-1][1])
        if self.n_chars > MAX_LINE_BYTES or len(self.taken) > _MAX_LINES:
            msg = "the record has no end"
            raise csv.Error(msg)
        return self.taken[-1][1]

    def begin(self) -> None:
        """Forget the lines of the last record."""
        self.taken.clear()
        self.n_chars = 0

    def give_back(self, lines: list[tuple[int, str]]) -> None:
        """Read these again next."""
        self._repeated.extendleft(reversed(lines))


class _Records:
    """(number of its last line, values) pairs; an error stands for a line that is no row."""

    def __init__(self, lines: BinaryIO, delimiter: str) -> None:
        # The limit is one for the whole process; a text of 10 MB must arrive to be refused by name.
        csv.field_size_limit(MAX_LINE_BYTES)
        self.width: int | None = None
        self._delimiter = delimiter
        self._lines = _Lines(numbered_lines(lines), delimiter.encode())
        self._reader = csv.reader(self._lines, delimiter=delimiter, strict=True)

    def __iter__(self) -> Iterator[tuple[int, list[str] | InputError]]:
        while True:
            self._lines.begin()
            try:
                values = next(self._reader, None)
            except csv.Error as error:
                yield from self._misread(error)
                continue
            while self._lines.too_long:
                message = f"the line has over {MAX_LINE_BYTES >> 20} MiB or {_MAX_FIELDS:,} fields"
                yield self._lines.too_long.pop(), InputError(message, "line_too_long")
            if values is None:
                return
            if not values:
                continue
            if self.width is None or len(values) == self.width:
                yield self._lines.taken[-1][0], values
            else:
                yield from self._ragged(len(values))

    def line(self) -> str:
        """The line that the record begins with."""
        return self._lines.taken[0][1] if self._lines.taken else ""

    def _misread(self, error: csv.Error) -> Iterator[tuple[int, InputError]]:
        first, *swallowed = self._lines.taken
        message = f"{error}; check the quotes"
        yield first[0], InputError(message, "malformed_line")
        if all(map(self._is_row, swallowed[:-1])) and self._may_begin_row(swallowed[-1:]):
            self._lines.give_back(swallowed)
        else:
            yield from _lost(first[0], swallowed)

    def _ragged(self, n_fields: int) -> Iterator[tuple[int, InputError]]:
        first, *swallowed = self._lines.taken
        message = (
            f"{n_fields} fields where the header has {self.width}; quote a field that holds the "
            "separator"
        )
        yield first[0], InputError(message, "ragged_row")
        yield from _lost(first[0], swallowed)

    def _is_row(self, line: tuple[int, str]) -> bool:
        """Tells whether a line is a row by itself, or blank."""
        try:
            (values,) = csv.reader([line[1]], delimiter=self._delimiter, strict=True)
        except csv.Error:
            return False
        return not values or len(values) == self.width

    def _may_begin_row(self, last: list[tuple[int, str]]) -> bool:
        """Tells whether the line at which a record broke is a row, or ends within own quotes."""
        if not last or self._is_row(last[0]):
            return True
        lenient = csv.reader([last[0][1]], delimiter=self._delimiter)
        return len(next(lenient)) <= (self.width or 0) and last[0][1].count('"') % 2 == 1


def _lost(first: int, lines: list[tuple[int, str]]) -> Iterator[tuple[int, InputError]]:
    for number, line in lines:
        if not line.strip():
            continue
        message = f"the line is inside quotes that line {first} opens; check the quotes there"
        yield number, InputError(message, "malformed_line")


def _checked_header(file: ListedFile, names: list[str], delimiter: str) -> list[str]:
    header = [name.strip() for name in names]
    check_header(file.name, header, delimiter)
    return header
