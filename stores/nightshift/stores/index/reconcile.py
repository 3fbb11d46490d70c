"""Mend an index whose vectors Milvus has lost: what is forgotten, embedded again, and by whom."""

from sqlalchemy import Connection, delete, exists, func, select, text, update

from nightshift.schema.ledger_tables import Run
from nightshift.schema.states import RunState, Stage
from nightshift.schema.tables import Embedding, IndexVersion
from nightshift.stores.catalog.contents import IN_REVISION, SEEN_BY_INDEX
from nightshift.stores.index.embeddings import NEEDED, items_to_embed
from nightshift.stores.index.indexes import IndexRow
from nightshift.stores.ledger.jobs import has_unfinished_jobs
from nightshift.stores.ledger.run_types import IndexedRun, RerankRun
from nightshift.stores.ledger.runs import active_runs

__all__ = [
    "forget",
    "is_being_mended",
    "items_without_vector",
    "lock_index",
    "needed_keys",
    "not_left_to_runs",
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


def needed_keys(
    connection: Connection, index_id: int, keys: list[str], *, revision: int
) -> list[str]:
    """Those of these keys whose items have their content in a revision, sorted.

    A run embeds what it needs itself: other contents than those of its revision are not its own.
    """
    values = {"index": index_id, "keys": keys, "revision": revision}
    return list(connection.scalars(_NEEDED_KEYS, values))


def not_left_to_runs(
    connection: Connection, index_id: int, keys: list[str], *, revision: int
) -> list[str]:
    """These keys without those that only unfinished runs of other revisions need, sorted.

    Such a run finds its lost vectors itself before it searches, and embeds them again.
    """
    values = {"index": index_id, "keys": keys, "revision": revision}
    return list(connection.scalars(_NOT_LEFT_TO_RUNS, values))


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


def items_without_vector(connection: Connection, index: IndexRow, *, revision: int) -> list[int]:
    """Items of a revision with neither a vector of their content nor a failure."""
    failed_ids = _items_that_failed(connection, index.id, revision)
    item_ids = items_to_embed(
        connection,
        catalog_id=index.catalog_id,
        index_id=index.id,
        parts=index.parts,
        revision=revision,
    )
    return [item_id for item_id in item_ids if item_id not in failed_ids]


def _items_that_failed(connection: Connection, index_id: int, revision: int) -> set[int]:
    rows = connection.execute(_FAILED_ITEMS, {"index": index_id, "revision": revision})
    return {int(row.id) for row in rows}


# SQL: the embeddings of some keys of an index.
_OF_KEYS = """
    SELECT e.key FROM embedding e JOIN "index" i ON i.id = e.index_id
    WHERE e.index_id = :index AND e.key = ANY(:keys)"""

# SQL condition: the content of the embedding `e` is that of its item in a revision.
_IN_REVISION = f"""EXISTS (
    SELECT FROM item_version v JOIN content ON content.id = v.content_id
    WHERE v.item_id = e.item_id AND {IN_REVISION} AND {SEEN_BY_INDEX} = e.content)"""

# Lists the keys whose items have their content in a revision.
_NEEDED_KEYS = text(f"{_OF_KEYS} AND {_IN_REVISION} ORDER BY e.key")

# Lists the keys that a revision needs, or nobody.
_NOT_LEFT_TO_RUNS = text(f"{_OF_KEYS} AND ({_IN_REVISION} OR NOT {NEEDED}) ORDER BY e.key")

# Lists the items that some run over the index could not embed as a revision has them.
_FAILED_ITEMS = text(f"""
    SELECT DISTINCT item.id FROM failure f JOIN run ON run.id = f.run_id
    JOIN item ON item.catalog_id = run.catalog_id AND item.external_id = f.subject_id
    JOIN item_version v ON v.item_id = item.id AND {IN_REVISION}
    JOIN item_version seen ON seen.item_id = item.id AND seen.content_id = v.content_id
        AND run.revision BETWEEN seen.first_revision AND seen.last_revision
    WHERE run.index_id = :index AND f.stage = 'embed' AND f.fatal
        AND f.subject_kind = 'item'
""")
