"""The live vectors of an index: which items lack one, writing them, dropping dead ones."""

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, text

from nightshift.schema.identity import embedding_key
from nightshift.stores.catalog.contents import BELONGS_IN_INDEX, HASH_COLUMN

__all__ = [
    "drop_gone_embeddings",
    "items_to_embed",
    "write_embeddings",
]


def items_to_embed(
    connection: Connection, *, catalog_id: int, index_id: int, parts: str, fingerprint: str
) -> Iterator[int]:
    """Ids of live items whose current content has no live vector in the index.

    In id order, but equal contents follow the first of them: a job embeds each content once.
    """
    rows = connection.execute(_ITEMS_WITH_KEYS[parts], {"catalog": catalog_id, "index": index_id})
    for row in rows:
        if row.key != embedding_key(row.external_id, bytes(row.content), fingerprint):
            yield row.id


def drop_gone_embeddings(connection: Connection, *, index_id: int) -> int:
    """Drop items from an index that are gone or lost what it is made of.

    The import that changed them dropped them already, but a job may have embedded one meanwhile.
    Their vectors become orphans.
    """
    dropped = connection.execute(_DROP_GONE, {"index": index_id})
    return int(dropped.rowcount)


def write_embeddings(
    connection: Connection,
    *,
    index_id: int,
    run_id: int,
    keys: Sequence[tuple[int, str]],
    load_id: int | None = None,
) -> None:
    """Make vectors live: from this commit on a search may return them.

    An item that is gone meanwhile is left out. An item that lost its part meanwhile is written, but
    `indexes.live_items` leaves it out, and the next index build drops it.

    Args:
        connection: The job's last transaction.
        index_id: The index version.
        run_id: The run that made them.
        keys: (item id, Milvus key).
        load_id: The load of the embedder.
    """
    connection.execute(
        _WRITE_EMBEDDINGS,
        {
            "index": index_id,
            "run": run_id,
            "items": [item_id for item_id, _ in keys],
            "keys": [key for _, key in keys],
            "load": load_id,
        },
    )


# By parts: lists the live items that have such a part, with the key of their live vector.
_ITEMS_WITH_KEYS = {
    parts: text(f"""
        SELECT item.id, item.external_id, item.{column} AS content, embedding.key
        FROM item LEFT JOIN embedding
            ON embedding.item_id = item.id AND embedding.index_id = :index
        WHERE item.catalog_id = :catalog AND item.state = 'live' AND item.{column} IS NOT NULL
        ORDER BY min(item.id) OVER (PARTITION BY item.{column}), item.id
    """).execution_options(yield_per=5000)
    for parts, column in HASH_COLUMN.items()
}

# Deletes the embeddings of items that no longer belong in their index.
_DROP_GONE = text(f"""
    DELETE FROM embedding USING item, "index" AS i
    WHERE embedding.index_id = :index AND i.id = :index
        AND item.id = embedding.item_id AND NOT ({BELONGS_IN_INDEX})
""")

# Writes the keys of items that are still live, in place of earlier ones.
_WRITE_EMBEDDINGS = text("""
    INSERT INTO embedding (index_id, run_id, item_id, key, load_id)
    SELECT :index, :run, item_id, key, :load
    FROM unnest(CAST(:items AS bigint[]), CAST(:keys AS text[])) AS new(item_id, key)
    JOIN item ON item.id = new.item_id AND item.state = 'live'
    ON CONFLICT (index_id, item_id) DO UPDATE SET
        key = excluded.key, run_id = excluded.run_id, load_id = excluded.load_id
""")
