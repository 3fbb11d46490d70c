"""Token sets in Postgres: which visual tokens are kept, under which codec, and in which shard."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from nightshift.schema.columns_of import columns_of
from nightshift.schema.errors import ConflictError
from nightshift.schema.token_tables import TokenRecord, TokenSet, TokenShard
from nightshift.stores.catalog.contents import IN_REVISION, ITEM_CONTENTS
from nightshift.stores.files.addresses import resolve_beside
from nightshift.stores.tokens.shards import Place, Shard

__all__ = [
    "NewTokenRecord",
    "TokenPlace",
    "TokenSetRow",
    "codebook",
    "distinct_items",
    "ensure_set",
    "find_records",
    "find_set",
    "forget_shard",
    "get_set",
    "items_to_see",
    "keep_codebook",
    "shards",
    "write_shard_rows",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSetRow:
    """A row of table `token_set`, without the codebook, which `codebook` reads."""

    id: int
    catalog_id: int
    vision_fingerprint: str
    codec: str
    width: int
    precision: str
    address: str
    codebook_digest: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTokenRecord:
    """The tokens of one content's images, ready to be written."""

    #: 32 bytes, `ContentHashes.image`.
    content: bytes
    place: Place
    n_images: int
    #: Of all its images, before they are reduced.
    n_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPlace:
    """The place of the tokens of one content's images."""

    #: The address of the shard.
    address: str
    place: Place


def ensure_set(
    connection: Connection,
    *,
    catalog_id: int,
    vision_fingerprint: str,
    codec: str,
    width: int,
    precision: str,
    address: str,
) -> TokenSetRow:
    """The set of that catalogue, vision tower and codec, which is created if there is none.

    Raises:
        ConflictError: When the set exists at another address.
    """
    connection.execute(
        insert(TokenSet)
        .values(
            catalog_id=catalog_id,
            vision_fingerprint=vision_fingerprint,
            codec=codec,
            width=width,
            precision=precision,
            address=address,
        )
        .on_conflict_do_nothing()
    )
    token_set = find_set(
        connection, catalog_id=catalog_id, vision_fingerprint=vision_fingerprint, codec=codec
    )
    assert token_set is not None
    if token_set.address != address:
        raise ConflictError(
            f"the {codec} tokens of this catalogue and model lie in {token_set.address}: leave "
            "--store out to add to them"
        )
    return token_set


def find_set(
    connection: Connection, *, catalog_id: int, vision_fingerprint: str, codec: str
) -> TokenSetRow | None:
    """The set of that catalogue, vision tower and codec."""
    row = (
        connection.execute(
            _sets().where(
                TokenSet.catalog_id == catalog_id,
                TokenSet.vision_fingerprint == vision_fingerprint,
                TokenSet.codec == codec,
            )
        )
        .mappings()
        .one_or_none()
    )
    return None if row is None else TokenSetRow(**row)


def get_set(connection: Connection, set_id: int) -> TokenSetRow:
    """The set with an id."""
    row = connection.execute(_sets().where(TokenSet.id == set_id)).mappings().one()
    return TokenSetRow(**row)


def codebook(connection: Connection, set_id: int) -> bytes | None:
    """The trained codebook of a set; None if its codec has none, or it is not trained yet."""
    data: bytes | None = connection.execute(
        select(TokenSet.codebook).where(TokenSet.id == set_id)
    ).scalar_one()
    return data


def keep_codebook(connection: Connection, set_id: int, data: bytes, digest: str) -> None:
    """Write the codebook of a set; the first one stays, for tokens may be coded by it."""
    connection.execute(
        update(TokenSet)
        .where(TokenSet.id == set_id, TokenSet.codebook.is_(None))
        .values(codebook=data, codebook_digest=digest)
    )


def items_to_see(connection: Connection, token_set: TokenSetRow, *, revision: int) -> list[int]:
    """Items of a revision whose images have no tokens in the set, one for each content.

    In id order.
    """
    values = {"catalog": token_set.catalog_id, "revision": revision, "set": token_set.id}
    return list(connection.scalars(_DISTINCT_ITEMS, values))


def distinct_items(connection: Connection, catalog_id: int, *, revision: int) -> list[int]:
    """Items of a revision that have images, one for each content, in id order."""
    values = {"catalog": catalog_id, "revision": revision, "set": None}
    return list(connection.scalars(_DISTINCT_ITEMS, values))


def write_shard_rows(
    connection: Connection,
    *,
    set_id: int,
    run_id: int,
    name: str,
    shard: Shard,
    records: Sequence[NewTokenRecord],
    load_id: int | None = None,
) -> None:
    """Make records readable: from this commit on workers find them.

    Another job may have stored the same content meanwhile; the first record stays.

    Args:
        connection: The job's last transaction.
        set_id: The token set.
        run_id: The run that made them.
        name: The shard's name, below the set's address.
        shard: The file.
        records: What is in it.
        load_id: The load of the vision tower.
    """
    shard_id = connection.execute(
        insert(TokenShard)
        .values(
            token_set_id=set_id,
            name=name,
            n_bytes=shard.n_bytes,
            sha256=shard.sha256,
            run_id=run_id,
            load_id=load_id,
        )
        .returning(TokenShard.id)
    ).scalar_one()
    connection.execute(
        _WRITE_RECORDS,
        {
            "set": set_id,
            "shard": shard_id,
            "contents": [record.content for record in records],
            "starts": [record.place.offset for record in records],
            "bytes": [record.place.n_bytes for record in records],
            "digests": [record.place.digest for record in records],
            "images": [record.n_images for record in records],
            "tokens": [record.n_tokens for record in records],
        },
    )


def find_records(
    connection: Connection, token_set: TokenSetRow, contents: Sequence[bytes]
) -> Mapping[bytes, TokenPlace]:
    """The places of the tokens of contents; contents without tokens are left out."""
    rows = connection.execute(_FIND_RECORDS, {"set": token_set.id, "contents": list(contents)})
    return {
        bytes(row.content): TokenPlace(
            address=resolve_beside(token_set.address, row.name),
            place=Place(offset=row.start, n_bytes=row.n_bytes, digest=bytes(row.digest)),
        )
        for row in rows
    }


def shards(connection: Connection, token_set: TokenSetRow) -> Iterator[tuple[int, Shard]]:
    """The shards of a set with their ids, oldest first."""
    rows = connection.execute(
        select(TokenShard.id, TokenShard.name, TokenShard.n_bytes, TokenShard.sha256)
        .where(TokenShard.token_set_id == token_set.id)
        .order_by(TokenShard.id)
    ).all()
    for row in rows:
        address = resolve_beside(token_set.address, row.name)
        yield row.id, Shard(address=address, n_bytes=row.n_bytes, sha256=row.sha256)


def forget_shard(connection: Connection, shard_id: int) -> int:
    """Delete the rows of a shard that is lost; the next build makes its tokens again.

    Returns:
        The number of contents that it held.
    """
    contents = connection.execute(
        select(func.count()).select_from(TokenRecord).where(TokenRecord.shard_id == shard_id)
    ).scalar_one()
    connection.execute(delete(TokenShard).where(TokenShard.id == shard_id))
    return int(contents)


def _sets() -> Select[Any]:
    """Select token sets as `TokenSetRow` holds them."""
    return select(*columns_of(TokenSetRow, TokenSet))


# Lists the first item of each image content of a revision, of those that a set lacks.
_DISTINCT_ITEMS = text(f"""
    SELECT min(item.id) AS id FROM {ITEM_CONTENTS}
    WHERE item.catalog_id = :catalog AND {IN_REVISION} AND content.image_hash IS NOT NULL
        AND NOT EXISTS (SELECT FROM token_record r
            WHERE r.token_set_id = :set AND r.content = content.image_hash)
    GROUP BY content.image_hash ORDER BY 1
""")

# Writes the records of a shard, except for contents that are stored already.
_WRITE_RECORDS = text("""
    INSERT INTO token_record (token_set_id, shard_id, content, start, n_bytes, digest,
        n_images, n_tokens)
    SELECT :set, :shard, *
    FROM unnest(CAST(:contents AS bytea[]), CAST(:starts AS bigint[]),
        CAST(:bytes AS bigint[]), CAST(:digests AS bytea[]), CAST(:images AS bigint[]),
        CAST(:tokens AS bigint[]))
    ON CONFLICT DO NOTHING
""")

# Finds the shard and the place in it of each content.
_FIND_RECORDS = text("""
    SELECT r.content, s.name, r.start, r.n_bytes, r.digest
    FROM token_record r JOIN token_shard s ON s.id = r.shard_id
    WHERE r.token_set_id = :set AND r.content = ANY(:contents)
""")
