"""Parquet: read a few rows at a time, whatever the size of a row group or of a value."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nightshift.producers.sources.arrow_values import row_of, unpacked_bytes
from nightshift.producers.sources.rows import BadRow, RawRow, Row
from nightshift.producers.sources.text_checks import check_columns
from nightshift.schema.errors import InputError
from nightshift.stores.files.files import open_file
from nightshift.stores.files.globs import ListedFile

__all__ = ["read_parquet"]

#: Rows held at once; small, for a row may bring megabytes of image.
_BATCH_ROWS = 64
#: Bytes of the rows held at once, where one row has no more.
_BATCH_BYTES = 64 * 2**20
#: Bytes of one row; an image has up to 256 MiB, and is not packed.
_ROW_BYTES = 288 * 2**20
#: A column that becomes so many times larger when unpacked, and large, is a bomb.
_MAX_RATIO = 100
#: So is one of lists with so many values: runs of one value cost next to nothing.
_MANY_VALUES = 16 * 10**6
_MAX_RATIO_OF_MANY = 20
_MAX_VALUES_PER_BYTE = 8


def read_parquet(file: ListedFile) -> Iterator[Row]:
    """Rows of a Parquet file; an image column holds paths, bytes, or `{bytes, path}` structs.

    Raises:
        InputError: When two columns have one name.
    """
    number = 0
    with open_file(file.address) as raw, pq.ParquetFile(raw, pre_buffer=False) as table:
        check_columns(file.name, table.schema_arrow.names)
        metadata, dictionaries = table.metadata, _dictionaries(table.metadata)
        bombs = [_bomb(metadata.row_group(at)) for at in range(metadata.num_row_groups)]
        with pq.ParquetFile(
            raw, metadata=metadata, read_dictionary=dictionaries, pre_buffer=False
        ) as packed:
            for at, bomb in enumerate(bombs):
                if bomb:
                    raise InputError(
                        f"the column {bomb!r} of {file.name} takes many times its size when it is "
                        "unpacked; leave it out, or write the file again",
                        "source_too_packed",
                    )
                rows = _batch_rows(metadata.row_group(at))
                for batch in packed.iter_batches(batch_size=rows, row_groups=[at]):
                    for row in _rows(batch):
                        number += 1
                        yield _row(file, number, row)


def _row(file: ListedFile, number: int, row: dict[str, Any] | InputError) -> Row:
    position = f"{file.name}:{number}"
    if isinstance(row, InputError):
        message = f"{position}: {row.message}"
        return BadRow(position=position, reason=row.reason, message=message)
    return RawRow(position=position, fields=row, folder=file.folder)


def _dictionaries(metadata: pq.FileMetaData) -> list[str]:
    """Columns that must stay packed when read: one long value may stand in every row."""
    names = set()
    for at in range(metadata.num_row_groups):
        group = metadata.row_group(at)
        for column in map(group.column, range(group.num_columns)):
            if (
                column.physical_type == "BYTE_ARRAY"
                and any("DICTIONARY" in encoding for encoding in column.encodings)
                and column.total_uncompressed_size * column.num_values > _BATCH_BYTES
            ):
                names.add(column.path_in_schema)
    return sorted(names)


def _bomb(group: pq.RowGroupMetaData) -> str:
    """A column that takes far more memory than the file has bytes; empty where there is none."""
    for column in map(group.column, range(group.num_columns)):
        size, packed = column.total_uncompressed_size, column.total_compressed_size
        times = _MAX_RATIO if size > _BATCH_BYTES else None
        if column.num_values > max(_MANY_VALUES, group.num_rows):  # lists
            times = _MAX_RATIO_OF_MANY
            if column.num_values > _MAX_VALUES_PER_BYTE * size:
                times = 0
        if times is not None and size > times * packed:
            return str(column.path_in_schema)[:200]
    return ""


def _batch_rows(group: pq.RowGroupMetaData) -> int:
    average = int(group.total_byte_size) // max(1, int(group.num_rows))
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, average)))


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | InputError]:
    if unpacked_bytes(batch) <= _BATCH_BYTES:
        try:
            yield from batch.to_pylist()
        except Exception:  # noqa: BLE001 - whatever a value raises, it must cost its row at most
            yield from (row_of(batch, at) for at in range(batch.num_rows))
        return
    for at in range(batch.num_rows):
        row = batch.slice(at, 1)
        if unpacked_bytes(row) > _ROW_BYTES:
            yield InputError(
                f"the row has over {_ROW_BYTES >> 20} MiB; leave some fields out", "row_too_large"
            )
        else:
            yield row_of(batch, at)
