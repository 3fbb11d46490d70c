"""At the end of a run vectors that nobody needs any more leave Postgres and Milvus."""

import logging

from nightshift.stores.catalog.revisions import newest_revision
from nightshift.stores.index import reconcile
from nightshift.stores.index.embeddings import drop_unneeded, unneeded_keys
from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.index.verified_ranges import announce_writes
from nightshift.stores.index.writer import hold_writer
from nightshift.stores.ledger.run_types import IndexedRun, IndexRun
from nightshift.stores.postgres.database import Database

__all__ = ["delete_unneeded_vectors"]

_log = logging.getLogger(__name__)


def delete_unneeded_vectors(
    database: Database, vectors: VectorStore, run: IndexedRun, holder: str
) -> int:
    """Delete the vectors of contents that no current version and no unfinished run has.

    A run over the newest revision leaves none behind but where it builds the index. Nothing is
    deleted while another run may be embedding: its end, or the next index build, sees to it.

    Args:
        database: Postgres.
        vectors: Milvus.
        run: A run that has ended.
        holder: The process that wants to write to Milvus.

    Returns:
        The number of vectors that were deleted.
    """
    with database.begin() as connection:
        newest = newest_revision(connection, run.catalog_id)
        if run.revision == newest and not isinstance(run, IndexRun):
            return 0
        keys = unneeded_keys(connection, index_id=run.index_id)
        announce_writes(connection, run.index_id, keys)
    if not keys:
        return 0
    with hold_writer(database, vectors, holder), database.begin() as connection:
        if not reconcile.lock_index(connection, run.index_id):
            return 0
        # Until the commit no run begins that could need or embed them.
        dropped = drop_unneeded(connection, index_id=run.index_id, keys=keys)
        vectors.delete(run.collection, dropped)
        vectors.flush(run.collection)
    _log.info("%s: %d vectors that nobody needs are deleted", run.collection, len(dropped))
    return len(dropped)
