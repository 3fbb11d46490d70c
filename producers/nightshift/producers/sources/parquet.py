"""Parquet: read a few rows at a time, whatever the size of a row group."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nightshift.producers.sources.rows import BadRow, RawRow, Row
from nightshift.stores.files import open_file
from nightshift.stores.listing import ListedFile

__all__ = ["read_parquet"]

#: Rows held at once; small, for a row may bring megabytes of image.
_BATCH_ROWS = 64


def read_parquet(file: ListedFile) -> Iterator[Row]:
    """Rows of a Parquet file; an image column holds paths, bytes, or `{bytes, path}` structs."""
    number = 0
    with open_file(file.address) as raw, pq.ParquetFile(raw, pre_buffer=False) as table:
        for batch in table.iter_batches(batch_size=_BATCH_ROWS):
            for fields in _to_fields(batch):
                number += 1
                position = f"{file.name}:{number}"
                if fields is None:
                    message = f"{position}: a text of this row is not UTF-8; convert the file"
                    yield BadRow(position=position, reason="not_utf8", message=message)
                else:
                    yield RawRow(position=position, fields=fields, folder=file.folder)


def _to_fields(batch: pa.RecordBatch) -> list[dict[str, Any] | None]:
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            return [None]
        return [row for start in range(batch.num_rows) for row in _to_fields(batch.slice(start, 1))]
