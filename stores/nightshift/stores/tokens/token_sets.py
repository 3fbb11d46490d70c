"""Token sets in Postgres: which visual tokens are kept, under which codec, and in which shard."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from nightshift.schema.errors import ConflictError
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
    """See table `token_set`; the codebook itself is read by `codebook`."""

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
    """The tokens of one content's pictures, on their way into Postgres."""

    #: 32 bytes, `ContentHashes.image`.
    content: bytes
    place: Place
    n_images: int
    #: Of all its pictures, before they are reduced.
    n_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPlace:
    """Where the tokens of one content's pictures lie."""

    #: Of the shard.
    address: str
    place: Place


_SET = (
    "SELECT id, catalog_id, vision_fingerprint, codec, width, precision, address, codebook_digest "
    "FROM token_set"
)


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
    """The set of that catalogue, vision tower and codec, made where there is none.

    Raises:
        ConflictError: It lies elsewhere already.
    """
    connection.execute(
        text(
            """
            INSERT INTO token_set (catalog_id, vision_fingerprint, codec, width, precision, address)
            VALUES (:catalog, :vision, :codec, :width, :precision, :address)
            ON CONFLICT DO NOTHING
            """
        ),
        {
            "catalog": catalog_id,
            "vision": vision_fingerprint,
            "codec": codec,
            "width": width,
            "precision": precision,
            "address": address,
        },
    )
    found = find_set(
        connection, catalog_id=catalog_id, vision_fingerprint=vision_fingerprint, codec=codec
    )
    assert found is not None
    if found.address != address:
        raise ConflictError(
            f"the {codec} tokens of this catalogue and model lie in {found.address}: leave --store "
            "out to add to them"
        )
    return found


def find_set(
    connection: Connection, *, catalog_id: int, vision_fingerprint: str, codec: str
) -> TokenSetRow | None:
    """The set of that catalogue, vision tower and codec."""
    row = (
        connection.execute(
            text(
                f"{_SET} WHERE catalog_id = :catalog AND vision_fingerprint = :vision "
                "AND codec = :codec"
            ),
            {"catalog": catalog_id, "vision": vision_fingerprint, "codec": codec},
        )
        .mappings()
        .one_or_none()
    )
    return None if row is None else TokenSetRow(**row)


def get_set(connection: Connection, set_id: int) -> TokenSetRow:
    """One set, by its id."""
    row = connection.execute(text(f"{_SET} WHERE id = :set"), {"set": set_id}).mappings().one()
    return TokenSetRow(**row)


def codebook(connection: Connection, set_id: int) -> bytes | None:
    """The trained codebook of a set; None where its codec has none, or none yet."""
    found = connection.execute(
        text("SELECT codebook FROM token_set WHERE id = :set"), {"set": set_id}
    ).scalar_one()
    return None if found is None else bytes(found)


def keep_codebook(connection: Connection, set_id: int, data: bytes, digest: str) -> None:
    """Give a set its codebook; the first one stays, for tokens may be coded by it."""
    connection.execute(
        text(
            "UPDATE token_set SET codebook = :data, codebook_digest = :digest "
            "WHERE id = :set AND codebook IS NULL"
        ),
        {"set": set_id, "data": data, "digest": digest},
    )


def items_to_see(connection: Connection, token_set: TokenSetRow) -> list[int]:
    """Live items whose pictures have no tokens in the set, one for each content, in id order."""
    rows = connection.execute(
        text(
            """
            SELECT min(item.id) AS id FROM item
            WHERE item.catalog_id = :catalog AND item.state = 'live'
                AND item.image_hash IS NOT NULL AND NOT EXISTS (
                    SELECT FROM token_record r
                    WHERE r.token_set_id = :set AND r.content = item.image_hash)
            GROUP BY item.image_hash ORDER BY 1
            """
        ),
        {"catalog": token_set.catalog_id, "set": token_set.id},
    )
    return [int(row.id) for row in rows]


def distinct_items(connection: Connection, catalog_id: int) -> list[int]:
    """Live items that have pictures, one for each content, in id order."""
    rows = connection.execute(
        text(
            "SELECT min(id) AS id FROM item WHERE catalog_id = :catalog AND state = 'live' "
            "AND image_hash IS NOT NULL GROUP BY image_hash ORDER BY 1"
        ),
        {"catalog": catalog_id},
    )
    return [int(row.id) for row in rows]


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

    Another job may have stored the same content meanwhile; the first stays.

    Args:
        connection: The job's last transaction.
        set_id: The token set.
        run_id: The run that made them.
        name: Of the shard, below the set's address.
        shard: The file.
        records: What is in it.
        load_id: The load of the vision tower.
    """
    shard_id = connection.execute(
        text(
            "INSERT INTO token_shard (token_set_id, name, n_bytes, sha256, run_id, load_id) "
            "VALUES (:set, :name, :bytes, :sha256, :run, :load) RETURNING id"
        ),
        {
            "set": set_id,
            "name": name,
            "bytes": shard.n_bytes,
            "sha256": shard.sha256,
            "run": run_id,
            "load": load_id,
        },
    ).scalar_one()
    connection.execute(
        text(
            """
            INSERT INTO token_record (token_set_id, shard_id, content, start, n_bytes, digest,
                n_images, n_tokens)
            SELECT :set, :shard, *
            FROM unnest(CAST(:contents AS bytea[]), CAST(:starts AS bigint[]),
                CAST(:bytes AS bigint[]), CAST(:digests AS bytea[]), CAST(:images AS bigint[]),
                CAST(:tokens AS bigint[]))
            ON CONFLICT DO NOTHING
            """
        ),
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
    """Where the tokens of contents lie; those that have none are left out."""
    rows = connection.execute(
        text(
            """
            SELECT r.content, s.name, r.start, r.n_bytes, r.digest
            FROM token_record r JOIN token_shard s ON s.id = r.shard_id
            WHERE r.token_set_id = :set AND r.content = ANY(:contents)
            """
        ),
        {"set": token_set.id, "contents": list(contents)},
    )
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
        text(
            "SELECT id, name, n_bytes, sha256 FROM token_shard WHERE token_set_id = :set "
            "ORDER BY id"
        ),
        {"set": token_set.id},
    ).all()
    for row in rows:
        address = resolve_beside(token_set.address, row.name)
        yield row.id, Shard(address=address, n_bytes=row.n_bytes, sha256=bytes(row.sha256))


def forget_shard(connection: Connection, shard_id: int) -> int:
    """Forget a shard that is lost; the next build makes its tokens again.

    Returns:
        How many contents it held.
    """
    lost = connection.execute(
        text("SELECT count(*) FROM token_record WHERE shard_id = :shard"), {"shard": shard_id}
    ).scalar_one()
    connection.execute(text("DELETE FROM token_shard WHERE id = :shard"), {"shard": shard_id})
    return int(lost)
