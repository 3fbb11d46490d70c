"""The right to write to Milvus: one writer at a time for Milvus Lite, many for a server."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.postgres.database import Database
from nightshift.stores.postgres.named_leases import hold

__all__ = ["hold_writer"]


def hold_writer(
    database: Database,
    vectors: VectorStore,
    holder: str,
    waiting: Callable[[], None] = lambda: None,
) -> AbstractContextManager[object]:
    """Wait for the right to change collections, and hold it for a block.

    Args:
        database: Postgres.
        vectors: Milvus.
        holder: The process that wants to write.
        waiting: As for `hold`.
    """
    if not vectors.is_lite:
        return nullcontext()
    return hold(database, "milvus-writer", holder, waiting=waiting)
