"""The rankings of a run: all rows as a stream, or one query's ranking with its contents."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection

from nightshift.stores.catalog.contents import StoredRecord, load_items, load_queries
from nightshift.stores.ledger.run_types import RerankRun
from nightshift.stores.postgres.database import Database
from nightshift.stores.results import rankings
from nightshift.stores.results.ranked_items import RankedItem, RankingStream

__all__ = ["RankedList", "load_list", "open_rankings", "ranked_list"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedList:
    """The final ranking of one query; empty where the run has not ranked it."""

    query: StoredRecord
    #: Best first.
    rows: tuple[RankedItem, ...]
    #: Row id → item.
    items: Mapping[int, StoredRecord]


@contextmanager
def open_rankings(
    database: Database, run_id: int, *, query: str | None = None, limit: int | None = None
) -> Iterator[tuple[RerankRun, RankingStream]]:
    """A run and its ranking rows, read from Postgres while the `with` block consumes them.

    Args:
        database: Postgres.
        run_id: A rerank run.
        query: External id of a query; all queries if None.
        limit: Maximum number of rows.

    Raises:
        NotFoundError: If there is no such run or no such query in it.
        ConflictError: For a run that ranks nothing.
    """
    with database.begin() as connection:
        run = rankings.require_rerank(connection, run_id)
        query_ids = None if query is None else [rankings.find_query(connection, run_id, query)]
        yield run, rankings.stream_rankings(connection, run_id, query_ids=query_ids, limit=limit)


def ranked_list(
    database: Database, run_id: int, query: str, *, limit: int | None = None
) -> tuple[RerankRun, RankedList]:
    """A run and one query's ranking in it, with the contents of the query and its items.

    Raises:
        NotFoundError: If there is no such run or no such query in it.
        ConflictError: For a run that ranks nothing.
    """
    with database.begin() as connection:
        run = rankings.require_rerank(connection, run_id)
        query_id = rankings.find_query(connection, run_id, query)
        return run, load_list(connection, run, query_id, limit=limit)


def load_list(
    connection: Connection, run: RerankRun, query_id: int, *, limit: int | None = None
) -> RankedList:
    """The same as `ranked_list`, by row id and in an open transaction."""
    rows = tuple(rankings.stream_rankings(connection, run.id, query_ids=[query_id], limit=limit))
    return RankedList(
        query=load_queries(connection, [query_id])[query_id],
        rows=rows,
        items=load_items(connection, [row.item_id for row in rows], revision=run.revision),
    )
