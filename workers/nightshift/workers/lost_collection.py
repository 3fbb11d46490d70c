"""Make a collection again that Milvus has lost, in a job that needs it."""

import logging

from nightshift.stores.index import indexes
from nightshift.stores.index.lost_collections import restore_collection
from nightshift.stores.ledger.run_types import IndexedRun
from nightshift.workers.session import WorkerSession

__all__ = ["restore_for"]

_log = logging.getLogger(__name__)


def restore_for(session: WorkerSession, run: IndexedRun) -> None:
    """Make a run's collection again, empty; the comparison around a search embeds what it held.

    Only with the right to write to Milvus.
    """
    with session.database.begin() as connection:
        index = indexes.get_index(connection, run.index_id)
    if restore_collection(session.vectors, index):
        _log.warning("%s was gone from Milvus and is made again", run.collection)
