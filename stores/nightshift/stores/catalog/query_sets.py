"""Query sets in Postgres: written in one transaction, then never changed."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select, text, update

from nightshift.schema.query_tables import Query, QuerySet
from nightshift.stores.catalog.catalogs import INCOMING, CheckedRecord, record_arrays

__all__ = [
    "Judgement",
    "add_judgements",
    "add_queries",
    "begin_set",
    "drop_set",
    "find_set",
    "lock_name",
    "parts_of_set",
    "query_ids",
    "seal_set",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The relevance of an item to a query; 0 and less means not relevant."""

    query: str
    item: str
    relevance: int


def begin_set(connection: Connection, name: str) -> int:
    """Create a set, which `seal_set` must close in the same transaction."""
    # The digest is known when all queries are read; until then any value that no set can have.
    query_set_id = connection.execute(
        insert(QuerySet).values(name=name, content_hash=os.urandom(16)).returning(QuerySet.id)
    ).scalar_one()
    return int(query_set_id)


def add_queries(
    connection: Connection, query_set_id: int, records: Sequence[CheckedRecord]
) -> list[bool]:
    """Write a batch of queries.

    Returns:
        For each, in order, True if it was written; False if an earlier query has its id.
    """
    first: dict[str, CheckedRecord] = {}
    for record in records:
        first.setdefault(record.external_id, record)
    rows = connection.execute(
        _ADD_QUERIES, {"queries": query_set_id, **record_arrays(list(first.values()))}
    )
    added_ids = {row.external_id for row in rows}
    return [
        first[record.external_id] is record and record.external_id in added_ids
        for record in records
    ]


def add_judgements(
    connection: Connection, query_set_id: int, judgements: Iterable[Judgement]
) -> int:
    """Write judgements of queries in the set; the first of each pair counts.

    Returns:
        How many judgements name a query that is not in the set.
    """
    given = list(judgements)
    foreign = connection.execute(
        _ADD_JUDGEMENTS,
        {
            "queries": query_set_id,
            "names": [judgement.query for judgement in given],
            "items": [judgement.item for judgement in given],
            "relevances": [judgement.relevance for judgement in given],
        },
    )
    return int(foreign.scalar_one())


def lock_name(connection: Connection, name: str) -> None:
    """Let no other transaction close a set of that name before this one ends."""
    connection.execute(_LOCK_NAME, {"name": name})


def drop_set(connection: Connection, query_set_id: int) -> None:
    """Delete a new set with its queries, judgements and failures."""
    connection.execute(delete(QuerySet).where(QuerySet.id == query_set_id))


def find_set(connection: Connection, name: str, content_hash: bytes) -> int | None:
    """The set of that name and content."""
    query_set_id = connection.execute(
        select(QuerySet.id).where(QuerySet.name == name, QuerySet.content_hash == content_hash)
    ).scalar()
    return None if query_set_id is None else int(query_set_id)


def seal_set(
    connection: Connection, query_set_id: int, *, content_hash: bytes, n_queries: int
) -> None:
    """Close a new set."""
    connection.execute(
        update(QuerySet)
        .where(QuerySet.id == query_set_id)
        .values(content_hash=content_hash, n_queries=n_queries)
    )


def query_ids(connection: Connection, query_set_id: int) -> list[int]:
    """All queries of a set, in id order."""
    return list(
        connection.scalars(
            select(Query.id).where(Query.query_set_id == query_set_id).order_by(Query.id)
        )
    )


def parts_of_set(connection: Connection, query_set_id: int) -> str:
    """The parts that the queries of a set have: `text`, `image` or `text,image`."""
    row = connection.execute(
        select(
            func.bool_or(Query.text_hash.is_not(None)).label("text"),
            func.bool_or(Query.image_hash.is_not(None)).label("image"),
        ).where(Query.query_set_id == query_set_id)
    ).one()
    return ",".join(kind for kind, present in (("text", row.text), ("image", row.image)) if present)


# Writes a batch of queries in their order, and returns the ids of those that were new.
_ADD_QUERIES = text(f"""
    INSERT INTO query (query_set_id, external_id, parts, text_hash, image_hash, content_hash,
        metadata)
    SELECT :queries, external_id, parts, text_hash, image_hash, content_hash, metadata
    FROM ({INCOMING}) AS incoming ORDER BY number
    ON CONFLICT DO NOTHING RETURNING external_id
""")

# Writes the judgements of the set's own queries, and counts those of other queries.
_ADD_JUDGEMENTS = text("""
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
""")

# Takes a lock on the name of a query set until the transaction ends.
_LOCK_NAME = text("SELECT pg_advisory_xact_lock(hashtextextended('query_set ' || :name, 0))")
