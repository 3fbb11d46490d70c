"""Mend an index whose vectors Milvus has lost: what is forgotten, embedded again, and by whom."""

from sqlalchemy import Connection, delete, exists, func, select, text, update

from nightshift.schema.ledger_tables import Run
from nightshift.schema.states import RunState, Stage
from nightshift.schema.tables import Embedding, IndexVersion
from nightshift.stores.index.embeddings import items_to_embed
from nightshift.stores.index.indexes import IndexRow
from nightshift.stores.ledger.jobs import has_unfinished_jobs
from nightshift.stores.ledger.run_types import IndexedRun, RerankRun
from nightshift.stores.ledger.runs import active_runs

__all__ = [
    "forget",
    "is_being_mended",
    "items_without_vector",
    "lock_index",
]


def forget(connection: Connection, index_id: int, keys: list[str]) -> list[int]:
    """Mark these vectors as no longer live.

    Runs that are searching the index have missed them, and search again.

    Args:
        connection: The transaction that also plans their embedding.
        index_id: The index version.
        keys: Lost ones, as a comparison finds them.

    Returns:
        Ids of the items to embed again, sorted.
    """
    rows = connection.execute(
        delete(Embedding)
        .where(Embedding.index_id == index_id, Embedding.key == func.any(keys))
        .returning(Embedding.item_id)
    )
    forgotten = sorted(int(row.item_id) for row in rows)
    if forgotten:
        connection.execute(
            update(Run)
            .where(
                Run.index_id == index_id,
                Run.stage == Stage.SEARCH,
                Run.state.in_([RunState.RUNNING, RunState.PAUSED]),
            )
            .values(search_again=True)
        )
    return forgotten


def is_being_mended(connection: Connection, run: IndexedRun) -> bool:
    """Check whether another run over the index is embedding its lost vectors before it searches."""
    return any(
        has_unfinished_jobs(connection, other.id, Stage.EMBED)
        for other in active_runs(connection)
        if isinstance(other, RerankRun)
        and other.id != run.id
        and other.index_id == run.index_id
        and other.stage is Stage.EMBED
    )


def lock_index(connection: Connection, index_id: int) -> bool:
    """Keep new runs off an index for this transaction.

    Returns:
        True if no unfinished run could be embedding into it.
    """
    connection.execute(select(IndexVersion.id).where(IndexVersion.id == index_id).with_for_update())
    is_embedding = exists().where(
        Run.index_id == index_id,
        Run.stage == Stage.EMBED,
        Run.state.in_([RunState.RUNNING, RunState.PAUSED]),
    )
    return not connection.execute(select(is_embedding)).scalar_one()


def items_without_vector(connection: Connection, index: IndexRow) -> list[int]:
    """Live items with neither a vector of their current content nor a failure, sorted."""
    failed_ids = _items_that_failed(connection, index.id)
    item_ids = items_to_embed(
        connection,
        catalog_id=index.catalog_id,
        index_id=index.id,
        parts=index.parts,
        fingerprint=index.embedder_fingerprint,
    )
    return [item_id for item_id in item_ids if item_id not in failed_ids]


def _items_that_failed(connection: Connection, index_id: int) -> set[int]:
    rows = connection.execute(_FAILED_ITEMS, {"index": index_id})
    return {int(row.id) for row in rows}


# Lists the items that some run over the index could not embed.
_FAILED_ITEMS = text("""
    SELECT DISTINCT item.id FROM failure f JOIN run ON run.id = f.run_id
    JOIN item ON item.catalog_id = run.catalog_id AND item.external_id = f.subject_id
    WHERE run.index_id = :index AND f.stage = 'embed' AND f.fatal
        AND f.subject_kind = 'item'
""")
