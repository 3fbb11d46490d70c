"""Milvus may forget what it acknowledged: compare its keys with those that Postgres calls live."""

from collections.abc import Iterable
from itertools import chain

from sqlalchemy import Connection, text

from nightshift.stores.database import copy_rows

__all__ = ["forget_missing"]


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
