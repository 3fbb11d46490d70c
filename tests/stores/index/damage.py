"""Damage that a kill at the wrong moment does to Milvus Lite, done on purpose."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nightshift.stack import Stack
from nightshift.stores.index.milvus import VectorStore


def tear_index(stack: Stack, vectors: VectorStore, collection: str) -> None:
    """As a kill while the index is written: it cannot be loaded any more."""
    stack.restart("milvus")
    vectors.load(collection)  # returns when all is indexed, unlike where it was loaded before
    stack.kill("milvus")
    files = list((stack.data_dir / "milvus" / "collections" / collection).rglob("*.idx"))
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    stack.up(0, dispatcher=False)


def double_rows(
    stack: Stack,
    vectors: VectorStore,
    collection: str,
    keys: Sequence[str],
    rows: NDArray[np.float32],
) -> None:
    """As a kill between the two last steps of a flush: a batch is stored, and still in the log."""
    vectors.upsert(collection, keys, rows)
    log = stack.data_dir / "milvus" / "collections" / collection / "wal"
    before = {file: file.read_bytes() for file in log.iterdir()}
    vectors.flush(collection)
    stack.kill("milvus")
    for file, content in before.items():
        file.write_bytes(content)
    stack.up(0, dispatcher=False)
    # The server indexes in the background what was flushed, and the kill may have torn that.
    vectors.load(collection)
    assert len(held(vectors, collection)) == len(set(held(vectors, collection))) + len(keys)


def held(vectors: VectorStore, collection: str) -> list[str]:
    """All keys, sorted, each as often as it is there."""
    return sorted(key for page in vectors.keys(collection) for key in page)
