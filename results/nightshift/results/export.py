"""Exports of rankings as jsonl, csv, parquet and TREC, streamed."""

import csv
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from io import TextIOWrapper
from itertools import islice
from typing import IO, Any

import pyarrow as pa
from pyarrow import parquet

from nightshift.results.csv_cells import to_csv_cell
from nightshift.schema.display import to_json
from nightshift.schema.trec_ids import to_trec_id
from nightshift.stores.results.rankings import RankedItem

__all__ = ["COLUMNS", "FORMATS", "export", "to_arrow"]

#: Columns of jsonl, csv and parquet: all fields of `RankedItem` but the row ids.
COLUMNS = tuple(
    field.name for field in fields(RankedItem) if field.name not in {"query_id", "item_id"}
)

_ROWS_PER_GROUP = 20_000


def export(rows: Iterable[RankedItem], file_format: str, stream: IO[bytes]) -> int:
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
    counting = _CountingIterator(rows)
    FORMATS[file_format](counting, stream)
    return counting.count


def _write_jsonl(rows: Iterable[RankedItem], stream: IO[bytes]) -> None:
    for row in rows:
        line = to_json(dict(zip(COLUMNS, _values(row), strict=True)))
        stream.write(line.encode() + b"\n")


def _write_csv(rows: Iterable[RankedItem], stream: IO[bytes]) -> None:
    with _text(stream) as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow(to_csv_cell(v) if isinstance(v, str) else v for v in _values(row))


def _write_trec(rows: Iterable[RankedItem], stream: IO[bytes]) -> None:
    for row in rows:
        line = (
            f"{to_trec_id(row.query)} Q0 {to_trec_id(row.item)} {row.final_rank} "
            f"{1 / row.final_rank:.9g} nightshift-{row.run_id}\n"
        )
        stream.write(line.encode())


def to_arrow(rows: Iterable[RankedItem]) -> pa.Table:
    """One Arrow table of `COLUMNS`, with the types that Parquet files get."""
    return pa.Table.from_batches(_batches(rows), schema=_arrow_schema())


def _write_parquet(rows: Iterable[RankedItem], stream: IO[bytes]) -> None:
    with parquet.ParquetWriter(stream, _arrow_schema(), compression="zstd") as writer:
        for batch in _batches(rows):
            writer.write_batch(batch)


def _batches(rows: Iterable[RankedItem]) -> Iterator[pa.RecordBatch]:
    schema = _arrow_schema()
    remaining = iter(rows)
    while batch := list(islice(remaining, _ROWS_PER_GROUP)):
        columns = zip(*map(_values, batch), strict=True)
        arrays = [
            pa.array(column, type=field.type) for column, field in zip(columns, schema, strict=True)
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


#: Name of a format on the command line → its writer.
FORMATS: dict[str, Callable[[Iterable[RankedItem], IO[bytes]], None]] = {
    "jsonl": _write_jsonl,
    "csv": _write_csv,
    "parquet": _write_parquet,
    "trec": _write_trec,
}


def _values(row: RankedItem) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in COLUMNS)


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


class _CountingIterator(Iterator[RankedItem]):
    """Counts the rows that are read from it."""

    def __init__(self, rows: Iterable[RankedItem]) -> None:
        self._rows = iter(rows)
        self.count = 0

    def __next__(self) -> RankedItem:
        row = next(self._rows)
        self.count += 1
        return row
