"""What the planner asks Postgres: items without a live vector, queries to search with."""

from collections.abc import Iterator

from sqlalchemy import Connection, text

from nightshift.schema.identity import embedding_key
from nightshift.stores.indexes import BELONGS_IN_INDEX

__all__ = [
    "HASH_COLUMN",
    "drop_gone_embeddings",
    "items_to_embed",
    "queries_to_search",
    "query_ids",
    "ranked_query_ids",
]

#: By parts: which hash of an item or query names what a model sees of it.
HASH_COLUMN = {"text": "text_hash", "image": "image_hash", "text,image": "content_hash"}


def items_to_embed(
    connection: Connection, *, catalog_id: int, index_id: int, parts: str, fingerprint: str
) -> Iterator[int]:
    """Ids of live items whose present content has no live vector in the index.

    In id order, but equal contents follow the first of them: a job embeds each content once.
    """
    rows = connection.execute(
        text(
            f"""
            SELECT item.id, item.external_id, item.{HASH_COLUMN[parts]} AS content, embedding.key
            FROM item LEFT JOIN embedding
                ON embedding.item_id = item.id AND embedding.index_id = :index
            WHERE item.catalog_id = :catalog AND item.state = 'live'
                AND item.{HASH_COLUMN[parts]} IS NOT NULL
            ORDER BY min(item.id) OVER (PARTITION BY item.{HASH_COLUMN[parts]}), item.id
            """
        ).execution_options(yield_per=5000),
        {"catalog": catalog_id, "index": index_id},
    )
    for row in rows:
        if row.key != embedding_key(row.external_id, bytes(row.content), fingerprint):
            yield row.id


def drop_gone_embeddings(connection: Connection, *, index_id: int) -> int:
    """Drop items from an index that are gone or lost what it is made of.

    The import that changed them did so already, but a job may have embedded one meanwhile. Their
    vectors become orphans.
    """
    gone = connection.execute(
        text(
            'DELETE FROM embedding USING item, "index" AS i '
            "WHERE embedding.index_id = :index AND i.id = :index "
            f"AND item.id = embedding.item_id AND NOT ({BELONGS_IN_INDEX})"
        ),
        {"index": index_id},
    )
    return int(gone.rowcount)


def query_ids(connection: Connection, query_set_id: int) -> list[int]:
    """All queries of a set, in id order."""
    rows = connection.execute(
        text("SELECT id FROM query WHERE query_set_id = :queries ORDER BY id"),
        {"queries": query_set_id},
    )
    return [int(row.id) for row in rows]


def queries_to_search(connection: Connection, run_id: int, query_set_id: int) -> list[int]:
    """Queries of a set that have no candidates in a run; in id order, equal ones together."""
    rows = connection.execute(
        text(
            """
            SELECT id FROM query WHERE query_set_id = :queries AND NOT EXISTS (
                SELECT FROM candidate c WHERE c.run_id = :run AND c.query_id = query.id)
            ORDER BY min(id) OVER (PARTITION BY content_hash), id
            """
        ),
        {"run": run_id, "queries": query_set_id},
    )
    return [int(row.id) for row in rows]


def ranked_query_ids(connection: Connection, run_id: int) -> list[int]:
    """Queries of a run that have candidates, in id order."""
    rows = connection.execute(
        text("SELECT DISTINCT query_id FROM candidate WHERE run_id = :run ORDER BY query_id"),
        {"run": run_id},
    )
    return [int(row.query_id) for row in rows]
