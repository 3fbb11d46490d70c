"""Reports on stored visual tokens: how much is stored, and whether all of it is intact."""

from dataclasses import dataclass

from sqlalchemy import Connection, func, select, text

from nightshift.schema.errors import InputError
from nightshift.schema.token_tables import TokenSet, TokenShard
from nightshift.stores.catalog.contents import IS_CURRENT, ITEM_CONTENTS
from nightshift.stores.postgres.database import Database
from nightshift.stores.tokens.shards import verify_shard
from nightshift.stores.tokens.token_sets import forget_shard, get_set, shards

__all__ = ["ShardReport", "TokenSetSummary", "list_sets", "stored_bytes", "verify_shards"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSetSummary:
    """A token set as `nightshift tokens list` shows it."""

    id: int
    catalog: str
    scorer: str
    codec: str
    #: Live items with images, and how many of them have tokens.
    items: int
    stored: int
    images: int
    bytes: int
    #: Measured: all bytes over all images; None if nothing is stored.
    bytes_per_image: float | None
    shards: int
    address: str
    vision_fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardReport:
    """The result of reading every shard."""

    shards: int
    #: One line for each damaged or missing shard, which names it.
    damaged: list[str]
    #: Contents whose tokens were deleted from Postgres.
    forgotten: int


def list_sets(connection: Connection) -> list[TokenSetSummary]:
    """All sets, the newest first."""
    rows = connection.execute(_LIST_SETS)
    return [TokenSetSummary(**row) for row in rows.mappings()]


def stored_bytes(connection: Connection) -> int:
    """Bytes of all shards of all sets."""
    total = select(func.coalesce(func.sum(TokenShard.n_bytes), 0))
    return int(connection.execute(total).scalar_one())


def verify_shards(database: Database, *, forget: bool) -> ShardReport:
    """Read every shard of every set and compare it with what was written.

    Args:
        database: Postgres.
        forget: Delete the rows of damaged shards.

    Raises:
        ServiceUnavailableError: A store does not answer; nothing of it counts as damaged.
    """
    with database.begin() as connection:
        set_ids = connection.scalars(select(TokenSet.id).order_by(TokenSet.id)).all()
        stored = [
            numbered
            for set_id in set_ids
            for numbered in shards(connection, get_set(connection, set_id))
        ]
    damaged: list[str] = []
    forgotten = 0
    for shard_id, shard in stored:
        try:
            verify_shard(shard)
        except InputError as error:
            damaged.append(str(error))
            if forget:
                with database.begin() as connection:
                    forgotten += forget_shard(connection, shard_id)
    return ShardReport(shards=len(stored), damaged=damaged, forgotten=forgotten)


# Lists the token sets with the sizes of their records and the share of items that have tokens.
_LIST_SETS = text(f"""
    SELECT t.id, catalog.name AS catalog, model.spec AS scorer, t.codec,
        held.items, held.stored, sizes.images, sizes.bytes,
        sizes.bytes::double precision / nullif(sizes.images, 0) AS bytes_per_image,
        (SELECT count(*) FROM token_shard s WHERE s.token_set_id = t.id) AS shards,
        t.address, t.vision_fingerprint
    FROM token_set t JOIN catalog ON catalog.id = t.catalog_id
        JOIN model ON model.fingerprint = t.vision_fingerprint
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(n_images), 0)::bigint AS images,
            coalesce(sum(n_bytes), 0)::bigint AS bytes
        FROM token_record r WHERE r.token_set_id = t.id) AS sizes
    CROSS JOIN LATERAL (
        SELECT count(*) AS items, count(r.content) AS stored
        FROM {ITEM_CONTENTS} LEFT JOIN token_record r
            ON r.token_set_id = t.id AND r.content = content.image_hash
        WHERE item.catalog_id = t.catalog_id AND {IS_CURRENT}
            AND content.image_hash IS NOT NULL) AS held
    ORDER BY t.id DESC
""")
