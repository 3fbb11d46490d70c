"""Milvus may forget what it acknowledged: compare its keys with those that Postgres calls live."""

from collections.abc import Iterable
from itertools import chain

from sqlalchemy import Connection, text, update

from nightshift.schema.ledger_tables import Run
from nightshift.schema.states import RunState, Stage
from nightshift.stores.index.embeddings import items_to_embed
from nightshift.stores.index.indexes import IndexRow
from nightshift.stores.ledger.jobs import has_unfinished_jobs
from nightshift.stores.ledger.run_types import IndexedRun, RerankRun
from nightshift.stores.ledger.runs import active_runs
from nightshift.stores.postgres.database import copy_rows

__all__ = [
    "find_missing",
    "forget",
    "is_being_mended",
    "items_without_vector",
    "lock_index",
    "orphans",
]


def find_missing(connection: Connection, index_id: int, present: Iterable[list[str]]) -> list[str]:
    """Keys that Postgres calls live and Milvus does not have, sorted.

    One that a job commits while `present` is being read may be among them: what is missing from a
    second list too is lost.

    Args:
        connection: A transaction.
        index_id: The index version.
        present: Pages of the keys that Milvus has.
    """
    connection.execute(text("CREATE TEMP TABLE present_key (key text) ON COMMIT DROP"))
    copy_rows(connection, "present_key", ("key",), ((key,) for key in chain.from_iterable(present)))
    connection.execute(text("ANALYZE present_key"))
    rows = connection.execute(
        text(
            """
            SELECT key FROM embedding WHERE index_id = :index AND NOT EXISTS (
                SELECT FROM present_key WHERE present_key.key = embedding.key)
            ORDER BY key
            """
        ),
        {"index": index_id},
    )
    return [str(row.key) for row in rows]


def forget(connection: Connection, index_id: int, keys: list[str]) -> list[int]:
    """Take back the promise that these vectors are live.

    Runs that are searching the index have missed them, and learn of it.

    Args:
        connection: The transaction that also plans their embedding.
        index_id: The index version.
        keys: As `find_missing` says them.

    Returns:
        Ids of the items to embed again, sorted.
    """
    rows = connection.execute(
        text(
            "DELETE FROM embedding WHERE index_id = :index AND key = ANY(:keys) RETURNING item_id"
        ),
        {"index": index_id, "keys": keys},
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
    """Whether another run that is about to search a run's index embeds lost vectors first."""
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
        Whether no run that could be embedding into it is under way.
    """
    connection.execute(text('SELECT FROM "index" WHERE id = :id FOR UPDATE'), {"id": index_id})
    return not connection.execute(
        text(
            "SELECT EXISTS (SELECT FROM run WHERE index_id = :id AND stage = 'embed' "
            "AND state IN ('running', 'paused'))"
        ),
        {"id": index_id},
    ).scalar_one()


def orphans(connection: Connection, index_id: int) -> list[str]:
    """Keys among those given to `find_missing` that Postgres does not call live, sorted.

    Only while `lock_index` says that nobody embeds: a vector is written before its key is live.
    """
    rows = connection.execute(
        text(
            """
            SELECT DISTINCT key FROM present_key WHERE NOT EXISTS (
                SELECT FROM embedding e WHERE e.index_id = :index AND e.key = present_key.key)
            ORDER BY key
            """
        ),
        {"index": index_id},
    )
    return [str(row.key) for row in rows]


def items_without_vector(connection: Connection, index: IndexRow) -> list[int]:
    """Live items with neither a vector of their present content nor a failure, sorted."""
    failed = _items_that_failed(connection, index.id)
    wanted = items_to_embed(
        connection,
        catalog_id=index.catalog_id,
        index_id=index.id,
        parts=index.parts,
        fingerprint=index.embedder_fingerprint,
    )
    return [one for one in wanted if one not in failed]


def _items_that_failed(connection: Connection, index_id: int) -> set[int]:
    rows = connection.execute(
        text(
            """
            SELECT DISTINCT item.id FROM failure f JOIN run ON run.id = f.run_id
            JOIN item ON item.catalog_id = run.catalog_id AND item.external_id = f.subject_id
            WHERE run.index_id = :index AND f.stage = 'embed' AND f.fatal
                AND f.subject_kind = 'item'
            """
        ),
        {"index": index_id},
    )
    return {int(row.id) for row in rows}
