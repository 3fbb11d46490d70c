"""The vectors of an index: which items lack one, writing them, dropping those of no use."""

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, text

from nightshift.stores.catalog.contents import (
    HASH_COLUMN,
    IN_REVISION,
    IN_REVISION_OF_RUN,
    IS_CURRENT,
    ITEM_CONTENTS,
    SEEN_BY_INDEX,
)

__all__ = [
    "NEEDED",
    "count_unneeded",
    "drop_unneeded",
    "items_to_embed",
    "unneeded_keys",
    "write_embeddings",
]


def items_to_embed(
    connection: Connection, *, catalog_id: int, index_id: int, parts: str, revision: int
) -> Iterator[int]:
    """Ids of items of a revision whose content has no vector in the index.

    In id order, but equal contents follow the first of them: a job embeds each content once.
    """
    values = {"catalog": catalog_id, "index": index_id, "revision": revision}
    for row in connection.execute(_ITEMS_TO_EMBED[parts], values):
        yield row.id


def count_unneeded(connection: Connection, *, index_id: int) -> int:
    """Count the vectors of contents that their items have neither now nor in an unfinished run."""
    return int(connection.execute(_COUNT_UNNEEDED, {"index": index_id}).scalar_one())


def unneeded_keys(connection: Connection, *, index_id: int) -> list[str]:
    """Keys of the vectors that `count_unneeded` counts, sorted."""
    return list(connection.scalars(_UNNEEDED_KEYS, {"index": index_id}))


def drop_unneeded(connection: Connection, *, index_id: int, keys: Sequence[str]) -> list[str]:
    """Drop those of these keys that nobody needs, and return them, sorted."""
    values = {"index": index_id, "keys": list(keys)}
    return sorted(connection.scalars(_DROP_UNNEEDED, values))


def write_embeddings(
    connection: Connection,
    *,
    index_id: int,
    run_id: int,
    keys: Sequence[tuple[int, str]],
    load_id: int | None = None,
) -> None:
    """Make vectors live: from this commit on a search may return them.

    Args:
        connection: The job's last transaction.
        index_id: The index version.
        run_id: The run that made them, from the contents of its revision.
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


# By parts: lists the items of a revision that have such a part and no vector of it.
_ITEMS_TO_EMBED = {
    parts: text(f"""
        SELECT item.id FROM {ITEM_CONTENTS}
        WHERE item.catalog_id = :catalog AND {IN_REVISION} AND content.{column} IS NOT NULL
            AND NOT EXISTS (SELECT FROM embedding e WHERE e.index_id = :index
                AND e.item_id = item.id AND e.content = content.{column})
        ORDER BY min(item.id) OVER (PARTITION BY content.{column}), item.id
    """).execution_options(yield_per=5000)
    for parts, column in HASH_COLUMN.items()
}

#: SQL condition: the content of the embedding `e` in the index `i` is that of its item now, or in
#: an unfinished run over the index.
NEEDED = f"""EXISTS (
    SELECT FROM item_version v JOIN content ON content.id = v.content_id
    WHERE v.item_id = e.item_id AND {SEEN_BY_INDEX} = e.content AND ({IS_CURRENT} OR EXISTS (
        SELECT FROM run WHERE run.index_id = e.index_id AND run.state IN ('running', 'paused')
            AND {IN_REVISION_OF_RUN})))"""

# SQL: the embeddings of an index whose contents nobody needs.
_UNNEEDED = f"""
    FROM embedding e JOIN "index" i ON i.id = e.index_id
    WHERE e.index_id = :index AND NOT {NEEDED}"""

# Counts the embeddings that nobody needs.
_COUNT_UNNEEDED = text(f"SELECT count(*) {_UNNEEDED}")

# Lists the embeddings that nobody needs.
_UNNEEDED_KEYS = text(f"SELECT e.key {_UNNEEDED} ORDER BY e.key")

# Deletes those of some embeddings that nobody needs. They are locked in the order in which jobs
# write them, so that neither waits for the other for ever.
_DROP_UNNEEDED = text(f"""
    WITH unneeded AS MATERIALIZED (
        SELECT e.key {_UNNEEDED} AND e.key = ANY(:keys) ORDER BY e.key FOR UPDATE OF e
    )
    DELETE FROM embedding USING unneeded
    WHERE embedding.index_id = :index AND embedding.key = unneeded.key
    RETURNING embedding.key
""")

# Writes the keys of vectors, each with the digest of what was embedded.
_WRITE_EMBEDDINGS = text(f"""
    INSERT INTO embedding (index_id, key, item_id, content, run_id, load_id)
    SELECT i.id, new.key, v.item_id, {SEEN_BY_INDEX}, run.id, :load
    FROM unnest(CAST(:items AS bigint[]), CAST(:keys AS text[])) AS new(item_id, key)
    JOIN run ON run.id = :run JOIN "index" i ON i.id = :index
    JOIN item_version v ON v.item_id = new.item_id AND {IN_REVISION_OF_RUN}
    JOIN content ON content.id = v.content_id
    WHERE {SEEN_BY_INDEX} IS NOT NULL ORDER BY new.key
    ON CONFLICT (index_id, key) DO UPDATE SET
        run_id = excluded.run_id, load_id = excluded.load_id
""")
