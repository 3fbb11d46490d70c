"""Catalogues and the imports that fill them, in Postgres."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, Update, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from nightshift.schema.errors import ConflictError, NotFoundError
from nightshift.schema.identity import ContentHashes
from nightshift.schema.records import Part
from nightshift.schema.states import SubjectKind
from nightshift.schema.tables import Catalog, CatalogImport
from nightshift.stores.catalog.contents import ITEM_CONTENTS, parts_text, parts_to_json
from nightshift.stores.catalog.import_failures import ImportFailure, record_failures, storable_text
from nightshift.stores.catalog.source_keys import source_key
from nightshift.stores.files.addresses import without_password

__all__ = [
    "INCOMING",
    "CheckedRecord",
    "ImportCounts",
    "begin_import",
    "catalog_id",
    "count_rows",
    "ensure_catalog",
    "finish_import",
    "has_images",
    "interrupt_import",
    "lock_catalog",
    "record_arrays",
    "record_columns",
    "require_newest",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedRecord:
    """An item or a query, checked and hashed, ready to be written."""

    #: Its place in the source, for messages.
    position: str
    external_id: str
    parts: tuple[Part, ...]
    hashes: ContentHashes
    #: A JSON object, as text.
    metadata: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportCounts:
    """Row counts of an import; once it has ended, the other four add up to `read`."""

    read: int = 0
    accepted: int = 0
    failed: int = 0
    unchanged: int = 0
    #: Good rows of an import that was refused or interrupted.
    not_applied: int = 0


def ensure_catalog(connection: Connection, name: str) -> int:
    """The id of a catalogue, which is created if there is none of that name."""
    connection.execute(insert(Catalog).values(name=name).on_conflict_do_nothing())
    return int(connection.execute(select(Catalog.id).where(Catalog.name == name)).scalar_one())


def catalog_id(connection: Connection, name: str) -> int:
    """The id of a catalogue.

    Raises:
        NotFoundError: With the command that makes one.
    """
    row_id = connection.execute(select(Catalog.id).where(Catalog.name == name)).scalar()
    if row_id is None:
        raise NotFoundError(
            f"there is no catalogue {name!r}; `nightshift catalog import {name} SOURCE` makes it"
        )
    return int(row_id)


def has_images(connection: Connection, catalog_id: int) -> bool:
    """True if any item of a catalogue has or had an image, in any revision."""
    return bool(connection.execute(_HAS_IMAGES, {"catalog": catalog_id}).scalar_one())


def begin_import(connection: Connection, catalog_id: int, source: str) -> int:
    """Record that a source is being read; this stops an earlier import that still runs.

    An earlier import that was killed is marked as ended.

    Returns:
        The id of the import.
    """
    lock_catalog(connection, catalog_id)
    unended = connection.scalars(
        _interrupt().where(CatalogImport.catalog_id == catalog_id).returning(CatalogImport.id)
    )
    for earlier_id in unended.all():
        record_failures(connection, [_UNENDED], import_id=earlier_id)
    import_id = connection.execute(
        insert(CatalogImport)
        .values(
            catalog_id=catalog_id,
            source=storable_text(without_password(source)),
            source_key=storable_text(source_key(source)),
        )
        .returning(CatalogImport.id)
    ).scalar_one()
    return int(import_id)


def record_arrays(records: Sequence[CheckedRecord]) -> dict[str, list[object]]:
    """The columns of records, as `INCOMING` takes them."""
    names = ("ids", "parts", "texts", "images", "contents", "metadata")
    columns = zip(*map(record_columns, records), strict=True) if records else ([] for _ in names)
    return {name: list(column) for name, column in zip(names, columns, strict=True)}


def record_columns(
    record: CheckedRecord,
) -> tuple[str, str, bytes | None, bytes | None, bytes, str]:
    """External id, parts, hashes of text, image and both, and metadata, as they are stored."""
    parts = parts_text(parts_to_json(record.parts))
    hashes = record.hashes
    return record.external_id, parts, hashes.text, hashes.image, hashes.both, record.metadata


def count_rows(connection: Connection, import_id: int, counts: ImportCounts) -> None:
    """Add to the counts of an import that is open."""
    connection.execute(
        update(CatalogImport)
        .where(CatalogImport.id == import_id, CatalogImport.finished_at.is_(None))
        .values(
            {name: getattr(CatalogImport, name) + rows for name, rows in asdict(counts).items()}
        )
    )


def finish_import(connection: Connection, import_id: int) -> None:
    """Close an import whose rows are all counted."""
    connection.execute(
        update(CatalogImport).where(CatalogImport.id == import_id).values(finished_at=func.now())
    )


def interrupt_import(connection: Connection, import_id: int) -> bool:
    """Close an import that stopped before its end; none of its rows is applied.

    Returns:
        True if it was open.
    """
    closed = connection.execute(_interrupt().where(CatalogImport.id == import_id))
    return closed.rowcount > 0


def require_newest(
    connection: Connection, catalog_id: int, import_id: int, *, lock: bool = False
) -> None:
    """Check that no newer import of the catalogue has begun; the newer id is the fencing token.

    Args:
        connection: Inside a transaction.
        catalog_id: The catalogue.
        import_id: An import of it.
        lock: Let no other import begin or change the catalogue before the transaction ends.

    Raises:
        ConflictError: When a newer one has begun.
    """
    if lock:
        lock_catalog(connection, catalog_id)
    newest = connection.execute(
        select(func.max(CatalogImport.id)).where(CatalogImport.catalog_id == catalog_id)
    ).scalar_one()
    if newest != import_id:
        raise ConflictError(
            f"import {newest} of the same catalogue began after this one ({import_id}), which "
            "stopped here and left the catalogue as it was; run this one again when that has "
            "finished"
        )


def lock_catalog(connection: Connection, catalog_id: int) -> None:
    """Let no other transaction begin an import of a catalogue or change it before this one ends."""
    connection.execute(
        select(Catalog.id).where(Catalog.id == catalog_id).with_for_update(key_share=True)
    )


def _interrupt() -> Update:
    """Close open imports, none of whose good rows is applied."""
    return (
        update(CatalogImport)
        .where(CatalogImport.finished_at.is_(None))
        .values(
            finished_at=func.now(),
            accepted=0,
            unchanged=0,
            not_applied=CatalogImport.read - CatalogImport.failed,
        )
    )


# Says whether some version of an item of a catalogue has an image.
_HAS_IMAGES = text(f"""
    SELECT EXISTS (SELECT FROM {ITEM_CONTENTS}
        WHERE item.catalog_id = :catalog AND content.image_hash IS NOT NULL)
""")

_UNENDED = ImportFailure(
    kind=SubjectKind.LINE,
    subject="",
    reason="interrupted",
    message="it had not ended when the next import of its catalogue began: it was killed, or is "
    "stopped by that one; none of its rows is in the catalogue",
    fatal=False,
)

#: SQL query: the records of `record_arrays`, numbered from 1.
INCOMING = """
    SELECT external_id, CAST(parts AS jsonb) AS parts, text_hash, image_hash, content_hash,
        CAST(metadata AS jsonb) AS metadata, number
    FROM unnest(CAST(:ids AS text[]), CAST(:parts AS text[]), CAST(:texts AS bytea[]),
        CAST(:images AS bytea[]), CAST(:contents AS bytea[]), CAST(:metadata AS text[]))
        WITH ORDINALITY
        AS given(external_id, parts, text_hash, image_hash, content_hash, metadata, number)
"""
