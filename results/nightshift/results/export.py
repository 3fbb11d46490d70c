"""Exports of rankings as jsonl, csv, parquet and TREC, streamed."""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from io import TextIOWrapper
from itertools import islice
from typing import IO, Any, Protocol, runtime_checkable

import pyarrow as pa
from pyarrow import parquet

from nightshift.results.csv_cells import to_csv_cell
from nightshift.schema.display import to_json
from nightshift.schema.trec_ids import to_trec_id
from nightshift.stores.results.rankings import RankedItem

__all__ = ["COLUMNS", "FORMATS", "PagedRows", "Rows", "export", "to_arrow"]

_FIELDS = tuple(field.name for field in fields(RankedItem))
#: Columns of jsonl, csv and parquet: all fields of `RankedItem` but the row ids, which come last.
COLUMNS = tuple(name for name in _FIELDS if name not in {"query_id", "item_id"})
assert _FIELDS[: len(COLUMNS)] == COLUMNS

_ROWS_PER_GROUP = 20_000

_Values = Sequence[Any]


@runtime_checkable
class PagedRows(Protocol):
    """Rows that come as pages of values too, which is ten times as fast."""

    def pages(self) -> Iterator[Sequence[_Values]]:
        """Pages of rows, each with the values of `RankedItem` in the order of its fields."""
        ...


Rows = Iterable[RankedItem] | PagedRows


def export(rows: Rows, file_format: str, stream: IO[bytes]) -> int:
    """Write rows in one of `FORMATS`; memory does not grow with their number.

    TREC lines are `query Q0 item rank score tag`. Their score is 1 / rank, because tools
    such as trec_eval sort by score and ignore the rank, and no score of ours gives the final order
    (the margin is not monotone where the tie-break or a failed pair decided). Ids in TREC are
    encoded by `schema.trec_ids`, texts in CSV by `csv_cells`.

    Args:
        rows: The rows, in the order of the file.
        file_format: A key of `FORMATS`.
        stream: Open for writing bytes; stays open.

    Returns:
        The number of rows written.
    """
    count = 0

    def counted() -> Iterator[Sequence[_Values]]:
        nonlocal count
        for page in _pages(rows):
            count += len(page)
            yield page

    FORMATS[file_format](counted(), stream)
    return count


def to_arrow(rows: Rows) -> pa.Table:
    """One Arrow table of `COLUMNS`, with the types that Parquet files get."""
    return pa.Table.from_batches(_batches(_pages(rows)), schema=_arrow_schema())


def _pages(rows: Rows) -> Iterator[Sequence[_Values]]:
    if isinstance(rows, PagedRows):
        yield from rows.pages()
        return
    remaining = iter(rows)
    while page := list(islice(remaining, _ROWS_PER_GROUP)):
        yield [[getattr(row, name) for name in _FIELDS] for row in page]


def _write_jsonl(pages: Iterator[Sequence[_Values]], stream: IO[bytes]) -> None:
    for page in pages:
        for row in page:
            line = to_json(dict(zip(COLUMNS, row, strict=False)))  # the row ids are left out
            stream.write(line.encode() + b"\n")


def _write_csv(pages: Iterator[Sequence[_Values]], stream: IO[bytes]) -> None:
    with _text(stream) as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(COLUMNS)
        for page in pages:
            for row in page:
                values = row[: len(COLUMNS)]
                writer.writerow(to_csv_cell(v) if isinstance(v, str) else v for v in values)


def _write_trec(pages: Iterator[Sequence[_Values]], stream: IO[bytes]) -> None:
    places = [_FIELDS.index(name) for name in ("run_id", "query", "item", "final_rank")]
    for page in pages:
        for row in page:
            run_id, query, item, final_rank = (row[place] for place in places)
            line = (
                f"{to_trec_id(query)} Q0 {to_trec_id(item)} {final_rank} "
                f"{1 / final_rank:.9g} nightshift-{run_id}\n"
            )
            stream.write(line.encode())


def _write_parquet(pages: Iterator[Sequence[_Values]], stream: IO[bytes]) -> None:
    with parquet.ParquetWriter(stream, _arrow_schema(), compression="zstd") as writer:
        group: list[pa.RecordBatch] = []
        for batch in _batches(pages):
            group.append(batch)
            if sum(len(part) for part in group) >= _ROWS_PER_GROUP:
                writer.write_table(pa.Table.from_batches(group))
                group.clear()
        if group:
            writer.write_table(pa.Table.from_batches(group))


def _batches(pages: Iterator[Sequence[_Values]]) -> Iterator[pa.RecordBatch]:
    schema = _arrow_schema()
    for page in pages:
        columns = zip(*page, strict=True)
        arrays = [
            pa.array(column, type=field.type)
            for column, field in zip(columns, schema, strict=False)  # the row ids are left out
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


#: Name of a format on the command line → its writer.
FORMATS: dict[str, Callable[[Iterator[Sequence[_Values]], IO[bytes]], None]] = {
    "jsonl": _write_jsonl,
    "csv": _write_csv,
    "parquet": _write_parquet,
    "trec": _write_trec,
}


@contextmanager
def _text(stream: IO[bytes]) -> Iterator[TextIOWrapper]:
    lines = TextIOWrapper(stream, encoding="utf-8", newline="", write_through=False)
    try:
        yield lines
        lines.flush()
    finally:
        # Else the wrapper closes the stream, which belongs to the caller.
        lines.detach()


def _arrow_schema() -> pa.Schema:
    types = {
        "run_id": pa.int64(),
        "final_rank": pa.int32(),
        "coarse_rank": pa.int32(),
        "coarse_score": pa.float32(),
        "margin": pa.float32(),
        "probability": pa.float32(),
        "entropy": pa.float32(),
        "fired": pa.bool_(),
        "fired_layer": pa.int16(),
        "tie_group": pa.int32(),
        "tie_size": pa.int32(),
        "relevance": pa.int16(),
    }
    return pa.schema([(name, types.get(name, pa.string())) for name in COLUMNS])
