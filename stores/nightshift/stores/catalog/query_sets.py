"""Query sets in Postgres: written in one transaction, then never changed."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from nightshift.stores.catalog.catalogs import INCOMING, CheckedRecord, record_arrays

__all__ = [
    "Judgement",
    "add_judgements",
    "add_queries",
    "begin_set",
    "drop_set",
    "find_set",
    "lock_name",
    "query_ids",
    "seal_set",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """An item that answers a query; 0 and less says that it does not."""

    query: str
    item: str
    relevance: int


def begin_set(connection: Connection, name: str) -> int:
    """A new set, which `seal_set` must close in the same transaction."""
    begun = connection.execute(
        text("INSERT INTO query_set (name, content_hash) VALUES (:name, :hash) RETURNING id"),
        # The digest is known when all is read; until then any value does that no set can have.
        {"name": name, "hash": os.urandom(16)},
    )
    return int(begun.scalar_one())


def add_queries(
    connection: Connection, query_set_id: int, records: Sequence[CheckedRecord]
) -> list[bool]:
    """Write a batch of queries.

    Returns:
        For each, in order, whether it was taken; not where an earlier one has its id.
    """
    first: dict[str, CheckedRecord] = {}
    for record in records:
        first.setdefault(record.external_id, record)
    added = connection.execute(
        text(_ADD), {"queries": query_set_id, **record_arrays(list(first.values()))}
    )
    taken = {row.external_id for row in added}
    return [
        first[record.external_id] is record and record.external_id in taken for record in records
    ]


def add_judgements(
    connection: Connection, query_set_id: int, judgements: Iterable[Judgement]
) -> int:
    """Write judgements of queries that the set has; the first of a pair counts.

    Returns:
        How many name a query that the set has not.
    """
    given = list(judgements)
    foreign = connection.execute(
        text(
            """
            WITH given AS (
                SELECT * FROM unnest(CAST(:names AS text[]), CAST(:items AS text[]),
                    CAST(:relevances AS smallint[])) AS given(query, item, relevance)
            ),
            added AS (
                INSERT INTO qrel
                    (query_set_id, query_external_id, item_external_id, relevance)
                SELECT :queries, given.* FROM given JOIN query
                    ON query.query_set_id = :queries AND query.external_id = given.query
                ON CONFLICT DO NOTHING
            )
            SELECT count(*) FROM given LEFT JOIN query
                ON query.query_set_id = :queries AND query.external_id = given.query
            WHERE query.id IS NULL
            """
        ),
        {
            "queries": query_set_id,
            "names": [judgement.query for judgement in given],
            "items": [judgement.item for judgement in given],
            "relevances": [judgement.relevance for judgement in given],
        },
    )
    return int(foreign.scalar_one())


def lock_name(connection: Connection, name: str) -> None:
    """Until the end of the transaction, no other closes a set of that name."""
    connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended('query_set ' || :name, 0))"),
        {"name": name},
    )


def drop_set(connection: Connection, query_set_id: int) -> None:
    """Take back a new set and all that hangs on it."""
    connection.execute(text("DELETE FROM query_set WHERE id = :queries"), {"queries": query_set_id})


def find_set(connection: Connection, name: str, content_hash: bytes) -> int | None:
    """The set of that name and content."""
    found = connection.execute(
        text("SELECT id FROM query_set WHERE name = :name AND content_hash = :hash"),
        {"name": name, "hash": content_hash},
    ).scalar()
    return None if found is None else int(found)


def seal_set(
    connection: Connection, query_set_id: int, *, content_hash: bytes, n_queries: int
) -> None:
    """Close a new set."""
    connection.execute(
        text("UPDATE query_set SET content_hash = :hash, n_queries = :n WHERE id = :queries"),
        {"queries": query_set_id, "hash": content_hash, "n": n_queries},
    )


_ADD = f"""
    INSERT INTO query (query_set_id, external_id, parts, text_hash, image_hash, content_hash,
        metadata)
    SELECT :queries, external_id, parts, text_hash, image_hash, content_hash, metadata
    FROM ({INCOMING}) AS incoming ORDER BY number
    ON CONFLICT DO NOTHING RETURNING external_id
"""


def query_ids(connection: Connection, query_set_id: int) -> list[int]:
    """All queries of a set, in id order."""
    rows = connection.execute(
        text("SELECT id FROM query WHERE query_set_id = :queries ORDER BY id"),
        {"queries": query_set_id},
    )
    return [int(row.id) for row in rows]
