"""The vectors of a backup: one file of fixed-size rows for each Milvus collection."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from nightshift.schema.errors import ConflictError, NotFoundError
from nightshift.stack.backup.files import new_file
from nightshift.stack.backup.manifest import BackupFile, VectorFile
from nightshift.stores.index.milvus import VectorStore

__all__ = ["copy_vectors", "load_vectors"]

#: Of a row: the key, padded with NUL; the vector follows.
_KEY_BYTES = 64
_ROWS_PER_READ = 2048


def copy_vectors(
    store: VectorStore, directory: Path, report: Callable[[str], None]
) -> Iterator[tuple[VectorFile, BackupFile]]:
    """Write the vectors of every collection of ours into a backup.

    Args:
        store: The running Milvus.
        directory: The directory of the backup.
        report: Called with a sentence for each collection.

    Yields:
        The description and the entry of each file.
    """
    for number, collection in enumerate(store.collections(), start=1):
        path, n_rows = f"vectors/{number}.rows", 0
        try:
            shape = store.shape(collection)
            with new_file(directory, path) as (stream, entries):
                for keys, vectors in store.rows(collection):
                    stream.write(_to_rows(keys, vectors))
                    n_rows += len(keys)
            aliases = store.aliases(collection)
        except ConflictError:  # a collection of another program
            continue
        except NotFoundError:  # dropped meanwhile
            (directory / path).unlink(missing_ok=True)
            continue
        report(f"copied {n_rows:,} vectors of {collection}")
        described = VectorFile(
            path=path,
            collection=collection,
            aliases=aliases,
            dim=shape.dim,
            index_type=shape.index_type,
            metric=shape.metric,
            rows=n_rows,
        )
        yield described, entries[0]


def load_vectors(store: VectorStore, directory: Path, vectors: VectorFile) -> None:
    """Create a collection and its aliases, and insert the vectors of a backup."""
    store.create(vectors.collection, vectors.dim, vectors.index_type, vectors.metric)
    row_type = _row_type(vectors.dim)
    with (directory / vectors.path).open("rb") as stream:
        while block := stream.read(_ROWS_PER_READ * row_type.itemsize):
            rows = np.frombuffer(block, dtype=row_type)
            keys = [key.decode() for key in rows["key"].tolist()]
            store.upsert(vectors.collection, keys, rows["vector"])
    store.flush(vectors.collection)
    for alias in vectors.aliases:
        store.set_alias(alias, vectors.collection)


def _to_rows(keys: list[str], vectors: np.ndarray) -> bytes:
    rows = np.empty(len(keys), dtype=_row_type(vectors.shape[1]))
    rows["key"], rows["vector"] = [key.encode() for key in keys], vectors
    return rows.tobytes()


def _row_type(dim: int) -> np.dtype[np.void]:
    return np.dtype([("key", f"S{_KEY_BYTES}"), ("vector", "<f4", (dim,))])
