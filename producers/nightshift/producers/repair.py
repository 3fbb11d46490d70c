"""`doctor --repair`: Milvus, the ledger and the rankings are made to agree again."""

from collections.abc import Iterable, Iterator

from sqlalchemy import Connection

from nightshift.producers.job_sizes import block_jobs, job_size
from nightshift.producers.retry import redo_incomplete
from nightshift.schema.errors import NightshiftError, ServiceUnavailableError
from nightshift.schema.messages import queue_name
from nightshift.schema.params import IndexParams
from nightshift.schema.plans import IndexPlan
from nightshift.schema.states import RunState, Stage
from nightshift.stores.catalog.revisions import newest_revision
from nightshift.stores.index import indexes, reconcile
from nightshift.stores.index.comparison import compare
from nightshift.stores.index.indexes import IndexRow
from nightshift.stores.index.lost_collections import restore_collection
from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.index.verified_ranges import announce_writes, keys_to_delete
from nightshift.stores.index.writer import hold_writer
from nightshift.stores.ledger import receipts, runs
from nightshift.stores.ledger.jobs import add_jobs
from nightshift.stores.ledger.new_runs import create_index_run
from nightshift.stores.ledger.run_types import RerankRun
from nightshift.stores.postgres.database import Database
from nightshift.stores.results import model_loads

__all__ = ["drop_loads", "repair"]

_WRITER = "doctor"
#: The last runs whose books are counted.
_RUNS = 50


def drop_loads(database: Database, load_ids: Iterable[int]) -> Iterator[str]:
    """Delete what comes of loads of models that are in doubt.

    Yields:
        A sentence for each.

    Raises:
        NotFoundError: There is no such load.
    """
    for load_id in load_ids:
        with database.begin() as connection:
            dropped = model_loads.drop_load(connection, load_id)
        yield (
            f"load {load_id}: {dropped.text()} deleted, with the rankings and answers made of "
            "them; --repair takes up the runs that lack them and embeds again"
        )


def repair(database: Database, vectors: VectorStore) -> Iterator[str]:
    """Mend what can be mended; what has to be computed is queued as work of a run.

    A collection that is gone, or that holds vectors of another width, is made again; a torn index
    is built again, vectors written twice are merged, vectors that nobody owns are deleted, live
    items without a vector are embedded, and a run whose counts do not add up is taken up again. An
    index that is being embedded into is left alone.

    Yields:
        A sentence for each thing done.

    Raises:
        ServiceUnavailableError: When a service is away.
        NightshiftError: Why an index could not be mended, when everything else is done.
    """
    refused: NightshiftError | None = None
    with database.begin() as connection:
        ready = indexes.ready_indexes(connection)
        done = [run for run in runs.list_runs(connection, _RUNS) if run.state is RunState.DONE]
    for index in ready:
        try:
            yield from _repair_index(database, vectors, index)
        except ServiceUnavailableError:
            raise
        except NightshiftError as error:
            refused = error
    for run in done:
        if not isinstance(run, RerankRun):
            continue  # the items that it lacks are those that its index lacks
        with database.begin() as connection:
            missing = sum(balance.missing for balance in receipts.balances(connection, run))
        if missing:
            redo_incomplete(database, run.id)
            yield f"run {run.id} goes on: {missing} of its queries and pairs had no result"
    if refused is not None:
        raise refused


def _repair_index(database: Database, vectors: VectorStore, index: IndexRow) -> Iterator[str]:
    with hold_writer(database, vectors, _WRITER):
        if restore_collection(vectors, index, replace=True):
            yield f"{index.collection}: it was gone from Milvus and is made again"
        elif index.alias not in vectors.aliases(index.collection):
            vectors.set_alias(index.alias, index.collection)
            yield f"{index.collection}: its alias {index.alias} was lost and leads to it again"
        if vectors.load(index.collection):
            yield f"{index.collection}: its index was damaged and is built again"
        differences = compare(
            database, vectors, index, everything=True, keep=False, list_orphans=True
        )
        vectors.flush(index.collection)
        if differences.n_duplicates:
            yield f"{index.collection}: {differences.n_duplicates} vectors were there twice"
        with database.begin() as connection:
            announce_writes(connection, index.id, differences.orphans)
        with database.begin() as connection:
            if not reconcile.lock_index(connection, index.id):
                return
            revision = newest_revision(connection, index.catalog_id)
            lost = reconcile.not_left_to_runs(
                connection, index.id, differences.lost, revision=revision
            )
            missing = reconcile.forget(connection, index.id, lost)
            nobodys = keys_to_delete(connection, index.id, differences.orphans)
            vectors.delete(index.collection, nobodys)
            vectors.flush(index.collection)
            run_id, n_items = _embed(connection, index, revision)
    if nobodys:
        yield f"{index.collection}: {len(nobodys)} vectors that nobody owned are deleted"
    if n_items:
        yield (
            f"{index.collection}: run {run_id} embeds {n_items} items, {len(missing)} of which "
            "Milvus had lost"
        )


def _embed(connection: Connection, index: IndexRow, revision: int) -> tuple[int, int]:
    """Queue the live items that have no vector and no reason for it: (run id, how many)."""
    ids = reconcile.items_without_vector(connection, index, revision=revision)
    if not ids:
        return 0, 0
    run_id = create_index_run(
        connection,
        catalog_id=index.catalog_id,
        revision=revision,
        index_id=index.id,
        params=IndexParams(parts=index.parts),
        plan=IndexPlan(items=len(ids)),
    )
    add_jobs(
        connection,
        run_id,
        Stage.EMBED,
        queue_name(Stage.EMBED, index.embedder_fingerprint),
        block_jobs(ids, job_size(len(ids), None)),
    )
    return run_id, len(ids)
