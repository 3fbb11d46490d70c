"""What is stored of visual tokens, as an operator asks: how much, and whether it is whole."""

from dataclasses import dataclass

from sqlalchemy import Connection, text

from nightshift.schema.errors import InputError
from nightshift.stores.postgres.database import Database
from nightshift.stores.tokens.shards import verify_shard
from nightshift.stores.tokens.token_sets import forget_shard, get_set, shards

__all__ = ["ShardReport", "TokenSetSummary", "list_sets", "verify_shards"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSetSummary:
    """A token set as `nightshift tokens list` shows it."""

    id: int
    catalog: str
    scorer: str
    codec: str
    #: Live items with pictures, and how many of them have tokens.
    items: int
    stored: int
    images: int
    bytes: int
    #: Measured: all bytes over all images; None where nothing is stored.
    bytes_per_image: float | None
    shards: int
    address: str
    vision_fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardReport:
    """What reading every shard found."""

    shards: int
    #: One line for each that is damaged or gone, which names it.
    damaged: list[str]
    #: Contents whose tokens were dropped from the books.
    forgotten: int


def list_sets(connection: Connection) -> list[TokenSetSummary]:
    """All sets, the newest first."""
    rows = connection.execute(
        text(
            """
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
                FROM item LEFT JOIN token_record r
                    ON r.token_set_id = t.id AND r.content = item.image_hash
                WHERE item.catalog_id = t.catalog_id AND item.state = 'live'
                    AND item.image_hash IS NOT NULL) AS held
            ORDER BY t.id DESC
            """
        )
    )
    return [TokenSetSummary(**row) for row in rows.mappings()]


def verify_shards(database: Database, *, forget: bool) -> ShardReport:
    """Read every shard of every set and compare it with what was written.

    Args:
        database: Postgres.
        forget: Drop what is damaged from the books.

    Raises:
        ServiceUnavailableError: A store does not answer; nothing of it counts as damaged.
    """
    with database.begin() as connection:
        ids = [row.id for row in connection.execute(text("SELECT id FROM token_set ORDER BY id"))]
        every = [one for set_id in ids for one in shards(connection, get_set(connection, set_id))]
    damaged: list[str] = []
    forgotten = 0
    for shard_id, shard in every:
        try:
            verify_shard(shard)
        except InputError as error:
            damaged.append(str(error))
            if forget:
                with database.begin() as connection:
                    forgotten += forget_shard(connection, shard_id)
    return ShardReport(shards=len(every), damaged=damaged, forgotten=forgotten)
