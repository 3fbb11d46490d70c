"""Catalogues and their imports in Postgres: whole batches by one statement each."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, text

from nightshift.schema.errors import ConflictError
from nightshift.schema.identity import ContentHashes
from nightshift.schema.records import Part
from nightshift.schema.states import SubjectKind
from nightshift.stores.addresses import without_password
from nightshift.stores.contents import parts_to_json
from nightshift.stores.import_failures import ImportFailure, plain, record_failures

__all__ = [
    "ImportCounts",
    "ItemFate",
    "NewRecord",
    "add_counts",
    "begin_import",
    "ensure_catalog",
    "finish_import",
    "prune",
    "record_arrays",
    "upsert_items",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRecord:
    """An item or a query, checked and digested, on its way into Postgres."""

    #: Where it stands in its source, for messages.
    position: str
    external_id: str
    parts: tuple[Part, ...]
    hashes: ContentHashes
    #: A JSON object, as text.
    metadata: str


class ItemFate(StrEnum):
    """What became of a row."""

    #: New, changed, or back after it was gone.
    ACCEPTED = "accepted"
    #: Content, parts and metadata are what is stored.
    UNCHANGED = "unchanged"
    #: An earlier row of the same import has its id.
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportCounts:
    """Rows of an import; accepted + failed + unchanged = read."""

    read: int = 0
    accepted: int = 0
    failed: int = 0
    unchanged: int = 0


def ensure_catalog(connection: Connection, name: str) -> int:
    """The id of a catalogue, made where there is none of that name."""
    connection.execute(
        text("INSERT INTO catalog (name) VALUES (:name) ON CONFLICT DO NOTHING"), {"name": name}
    )
    found = connection.execute(text("SELECT id FROM catalog WHERE name = :name"), {"name": name})
    return int(found.scalar_one())


def begin_import(connection: Connection, catalog_id: int, source: str) -> int:
    """Record that a source is being read; an earlier import that still runs is stopped by it.

    One that was killed could not say that it ended: that is said of it now.

    Returns:
        The id of the import.
    """
    unended = connection.execute(
        text(
            "UPDATE catalog_import SET finished_at = now() "
            "WHERE catalog_id = :catalog AND finished_at IS NULL RETURNING id"
        ),
        {"catalog": catalog_id},
    )
    for row in unended.all():
        record_failures(connection, [_UNENDED], import_id=row.id)
    begun = connection.execute(
        text(
            "INSERT INTO catalog_import (catalog_id, source) VALUES (:catalog, :source) "
            "RETURNING id"
        ),
        {"catalog": catalog_id, "source": plain(without_password(source))},
    )
    return int(begun.scalar_one())


def upsert_items(
    connection: Connection, *, catalog_id: int, import_id: int, records: Sequence[NewRecord]
) -> list[ItemFate]:
    """Write a batch of items.

    Whether this import has seen an id is known from the item's row itself, so it is exact over any
    number of batches without remembering ids.

    Args:
        connection: Inside the transaction that also counts the batch.
        catalog_id: Where the items go.
        import_id: The newest import of that catalogue.
        records: Any ids, also several times the same.

    Returns:
        The fate of each record, in order.

    Raises:
        ConflictError: When a newer import of the catalogue has begun.
    """
    _require_newest(connection, catalog_id, import_id)
    first: dict[str, NewRecord] = {}
    for record in records:
        first.setdefault(record.external_id, record)
    known = connection.execute(
        text(_UPSERT),
        {"catalog": catalog_id, "import": import_id, **record_arrays(list(first.values()))},
    )
    fates = {row.external_id: ItemFate(row.fate) for row in known}
    return [
        fates.get(record.external_id, ItemFate.ACCEPTED)
        if first[record.external_id] is record
        else ItemFate.DUPLICATE
        for record in records
    ]


def record_arrays(records: Sequence[NewRecord]) -> dict[str, list[object]]:
    """The columns of records, as `INCOMING` takes them."""
    return {
        "ids": [record.external_id for record in records],
        "parts": [
            json.dumps(parts_to_json(record.parts), ensure_ascii=False) for record in records
        ],
        "texts": [record.hashes.text for record in records],
        "images": [record.hashes.image for record in records],
        "contents": [record.hashes.both for record in records],
        "metadata": [record.metadata for record in records],
    }


def add_counts(connection: Connection, import_id: int, counts: ImportCounts) -> None:
    """Count a batch, in the transaction that wrote it, so that the sums hold whenever it stops."""
    connection.execute(
        text(
            "UPDATE catalog_import SET read = read + :read, accepted = accepted + :accepted, "
            "failed = failed + :failed, unchanged = unchanged + :unchanged WHERE id = :import"
        ),
        {
            "import": import_id,
            "read": counts.read,
            "accepted": counts.accepted,
            "failed": counts.failed,
            "unchanged": counts.unchanged,
        },
    )


def prune(connection: Connection, *, catalog_id: int, import_id: int) -> int:
    """Mark live items that the import did not name as gone; one that failed in it stays.

    Returns:
        How many are gone now.

    Raises:
        ConflictError: When a newer import of the catalogue has begun.
    """
    _require_newest(connection, catalog_id, import_id)
    gone = connection.execute(
        text(
            """
            UPDATE item SET state = 'gone', updated_at = now()
            WHERE catalog_id = :catalog AND state = 'live' AND import_id IS DISTINCT FROM :import
                AND NOT EXISTS (SELECT FROM failure WHERE failure.import_id = :import
                    AND subject_kind = 'item' AND subject_id = item.external_id)
            """
        ),
        {"catalog": catalog_id, "import": import_id},
    )
    return int(gone.rowcount)


def finish_import(connection: Connection, import_id: int) -> None:
    """Close an import, whole or not; its counts are what was written."""
    connection.execute(
        text("UPDATE catalog_import SET finished_at = now() WHERE id = :import"),
        {"import": import_id},
    )


def _require_newest(connection: Connection, catalog_id: int, import_id: int) -> None:
    # The lock puts batches of two imports one after the other; the newer id is the fencing token.
    connection.execute(
        text("SELECT FROM catalog WHERE id = :catalog FOR NO KEY UPDATE"), {"catalog": catalog_id}
    )
    newest = connection.execute(
        text("SELECT max(id) FROM catalog_import WHERE catalog_id = :catalog"),
        {"catalog": catalog_id},
    ).scalar_one()
    if newest != import_id:
        raise ConflictError(
            f"import {newest} of the same catalogue began after this one ({import_id}), which "
            "stopped here; run this one again when that has finished"
        )


_UNENDED = ImportFailure(
    kind=SubjectKind.LINE,
    subject="",
    reason="interrupted",
    message="it had not ended when the next import of its catalogue began: it was killed, or is "
    "stopped by that one; what it had taken by then is in",
    fatal=False,
)

INCOMING = """
    SELECT external_id, CAST(parts AS jsonb) AS parts, text_hash, image_hash, content_hash,
        CAST(metadata AS jsonb) AS metadata, number
    FROM unnest(CAST(:ids AS text[]), CAST(:parts AS text[]), CAST(:texts AS bytea[]),
        CAST(:images AS bytea[]), CAST(:contents AS bytea[]), CAST(:metadata AS text[]))
        WITH ORDINALITY
        AS given(external_id, parts, text_hash, image_hash, content_hash, metadata, number)
"""

_UPSERT = f"""
    WITH incoming AS MATERIALIZED ({INCOMING}),
    known AS MATERIALIZED (
        SELECT item.id, external_id,
            CASE WHEN item.import_id = :import THEN 'duplicate'
                WHEN item.state = 'live' AND item.content_hash = incoming.content_hash
                    AND item.parts = incoming.parts AND item.metadata = incoming.metadata
                THEN 'unchanged' ELSE 'accepted' END AS fate
        FROM incoming JOIN item USING (external_id)
        WHERE item.catalog_id = :catalog
    ),
    seen AS (
        UPDATE item SET import_id = :import FROM known
        WHERE item.id = known.id AND known.fate = 'unchanged'
    ),
    changed AS (
        UPDATE item SET parts = incoming.parts, text_hash = incoming.text_hash,
            image_hash = incoming.image_hash, content_hash = incoming.content_hash,
            metadata = incoming.metadata, state = 'live', import_id = :import, updated_at = now()
        FROM known JOIN incoming USING (external_id)
        WHERE item.id = known.id AND known.fate = 'accepted'
    ),
    added AS (
        INSERT INTO item (catalog_id, external_id, parts, text_hash, image_hash, content_hash,
            metadata, import_id)
        SELECT :catalog, external_id, parts, text_hash, image_hash, content_hash, metadata, :import
        FROM incoming WHERE NOT EXISTS (
            SELECT FROM known WHERE known.external_id = incoming.external_id)
        ORDER BY number
    )
    SELECT external_id, fate FROM known
"""
