"""Milvus may forget what it acknowledged: compare its keys with those that Postgres calls live."""

from collections.abc import Iterable
from itertools import chain

from sqlalchemy import Connection, text

from nightshift.stores.database import copy_rows

__all__ = ["forget_missing", "items_that_failed", "lock_index", "orphans"]


def forget_missing(
    connection: Connection, index_id: int, present: Iterable[list[str]]
) -> list[int]:
    """Take back the promise that vectors are live which Milvus does not have.

    A job that commits while `present` is being read may lose its row here too; its items are then
    embedded once more, which changes nothing.

    Args:
        connection: The transaction that also plans their embedding.
        index_id: The index version.
        present: Pages of the keys that Milvus has.

    Returns:
        Ids of the items to embed again, sorted.
    """
    connection.execute(text("CREATE TEMP TABLE present_key (key text) ON COMMIT DROP"))
    copy_rows(connection, "present_key", ("key",), ((key,) for key in chain.from_iterable(present)))
    connection.execute(text("ANALYZE present_key"))
    rows = connection.execute(
        text(
            """
            DELETE FROM embedding WHERE index_id = :index AND NOT EXISTS (
                SELECT FROM present_key WHERE present_key.key = embedding.key)
            RETURNING item_id
            """
        ),
        {"index": index_id},
    )
    return sorted(int(row.item_id) for row in rows)


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
    """Keys among those given to `forget_missing` that Postgres does not call live, sorted.

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


def items_that_failed(connection: Connection, index_id: int) -> set[int]:
    """Items that runs over an index could not embed, and said why."""
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
