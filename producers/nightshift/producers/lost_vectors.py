"""Before a search stage and after it Milvus must hold what Postgres calls live.

It may forget in a crash what it has acknowledged, and a search that ran then has missed it.
"""

import logging
from typing import TypeGuard

from nightshift.schema.states import Stage
from nightshift.stores.index import indexes, reconcile
from nightshift.stores.index.comparison import compare
from nightshift.stores.index.lost_collections import restore_collection
from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.index.writer import hold_writer
from nightshift.stores.ledger import runs
from nightshift.stores.ledger.jobs import has_unfinished_jobs
from nightshift.stores.ledger.run_types import AnyRun, RerankRun
from nightshift.stores.postgres.database import Database

__all__ = ["WRITER", "depends_on_vectors", "find_lost_vectors"]

_log = logging.getLogger(__name__)

#: Name of the dispatcher where it waits for the right to write to Milvus.
WRITER = "dispatcher"


def depends_on_vectors(run: AnyRun) -> TypeGuard[RerankRun]:
    """Return whether the next stage of a run depends on the vectors that Milvus holds."""
    if not isinstance(run, RerankRun) or run.control.is_planning:
        return False
    return run.stage in (Stage.EMBED, Stage.SEARCH)


def find_lost_vectors(database: Database, vectors: VectorStore, run_id: int) -> list[str] | None:
    """Find the keys of live vectors that Milvus has lost; repair its index and merge duplicates.

    A collection that is gone is made again, and all its vectors count as lost. Keys of contents
    that the run's revision does not have are left to the runs that need them.

    Returns:
        None where no search is about to begin or has just ended, or another run is putting back
        what was lost.

    Raises:
        ConflictError: Where another collection took its name.
    """
    with database.begin() as connection:
        run = runs.get_run(connection, run_id)
        if not depends_on_vectors(run) or has_unfinished_jobs(connection, run.id, run.stage):
            return None
        if reconcile.is_being_mended(connection, run):
            return None
        index = indexes.get_index(connection, run.index_id)
    with hold_writer(database, vectors, WRITER):
        if restore_collection(vectors, index):
            _log.warning("%s was gone from Milvus and is made again", run.collection)
        vectors.load(run.collection)
        vectors.flush(run.collection)
    lost_keys = compare(database, vectors, index).lost
    with database.begin() as connection:
        return reconcile.needed_keys(connection, run.index_id, lost_keys, revision=run.revision)
