"""Import a catalogue: read a source once, write what is new or changed, record what is bad."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from nightshift.producers.intake import Intake, Rejected, batches
from nightshift.producers.sources import FieldNames, Row, open_source
from nightshift.schema.errors import ServiceUnavailableError
from nightshift.schema.states import SubjectKind
from nightshift.stores import catalogs
from nightshift.stores.blobs import BlobStore
from nightshift.stores.catalogs import ImportCounts, ItemFate, NewRecord
from nightshift.stores.database import Database
from nightshift.stores.import_failures import ImportFailure, record_failures
from nightshift.stores.listing import root_of
from nightshift.stores.roots import ImageRoots

__all__ = ["ImportSummary", "import_catalog", "import_rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSummary:
    """What an import did; accepted + failed + unchanged = read."""

    import_id: int
    read: int = 0
    #: New, changed, or back after they were gone.
    accepted: int = 0
    failed: int = 0
    #: Content, parts and metadata were stored already.
    unchanged: int = 0
    #: Live items that the source no longer names; only with `prune`.
    gone: int = 0


def import_catalog(
    database: Database,
    name: str,
    source: str,
    *,
    mapping: FieldNames | None = None,
    verify: bool = True,
    blobs: BlobStore | None = None,
    image_roots: Sequence[str] = (),
    prune: bool = False,
    progress: Callable[[ImportSummary], None] | None = None,
) -> ImportSummary:
    """Import a source into the catalogue of that name, making it where there is none.

    Importing the same source again changes nothing; a source that was mended brings in what failed.

    Args:
        database: Migrated.
        name: The catalogue.
        source: File, folder or glob pattern; path or fsspec URL.
        mapping: Fields that are not called `id`, `text`, `image` or `parts`.
        verify: Decode local images now; else a broken one fails when it is embedded.
        blobs: Keeps images that come in Parquet cells.
        image_roots: Folders and URLs below which images may lie, beside that of the source.
        prune: Mark items gone that the source no longer names, if it was read to its end.
        progress: Called after each batch.

    Raises:
        NotFoundError: Where there is no such source.
        ConfigurationError: Where nothing of it has a known format.
        ConflictError: Where a newer import of this catalogue has begun.
        ServiceUnavailableError: Where Postgres went away; what was counted is in.
    """
    rows = open_source(source)
    intake = Intake(
        names=mapping or FieldNames(),
        kind=SubjectKind.ITEM,
        verify=verify,
        blobs=blobs,
        roots=ImageRoots([root_of(source), *image_roots]),
    )
    return import_rows(database, name, source, rows, intake=intake, prune=prune, progress=progress)


def import_rows(
    database: Database,
    name: str,
    source: str,
    rows: Iterable[Row],
    *,
    intake: Intake,
    prune: bool = False,
    progress: Callable[[ImportSummary], None] | None = None,
) -> ImportSummary:
    """As `import_catalog`, for rows from anywhere; they are consumed as they are written."""
    with database.begin() as connection:
        catalog_id = catalogs.ensure_catalog(connection, name)
        import_id = catalogs.begin_import(connection, catalog_id, source)
    summary = ImportSummary(import_id=import_id)
    whole = True
    try:
        for batch in batches(intake.records(rows)):
            summary = _store(database, catalog_id, summary, batch, intake)
            whole = whole and not any(isinstance(row, Rejected) and row.ends_file for row in batch)
            if progress:
                progress(summary)
        if prune:
            summary = _prune(database, catalog_id, summary, whole=whole)
    except BaseException as error:
        with suppress(ServiceUnavailableError):
            _finish(database, import_id, _notice("interrupted", f"{type(error).__name__} {error}"))
        raise
    _finish(database, import_id)
    return summary


def _store(
    database: Database,
    catalog_id: int,
    summary: ImportSummary,
    batch: Sequence[NewRecord | Rejected],
    intake: Intake,
) -> ImportSummary:
    records = [row for row in batch if isinstance(row, NewRecord)]
    failures = [row.failure for row in batch if isinstance(row, Rejected)]
    with database.begin() as connection:
        fates = catalogs.upsert_items(
            connection, catalog_id=catalog_id, import_id=summary.import_id, records=records
        )
        failures += [
            intake.duplicate(record)
            for record, fate in zip(records, fates, strict=True)
            if fate is ItemFate.DUPLICATE
        ]
        record_failures(connection, failures, import_id=summary.import_id)
        counts = ImportCounts(
            read=len(batch),
            accepted=fates.count(ItemFate.ACCEPTED),
            failed=len(failures),
            unchanged=fates.count(ItemFate.UNCHANGED),
        )
        catalogs.add_counts(connection, summary.import_id, counts)
    return replace(
        summary,
        read=summary.read + counts.read,
        accepted=summary.accepted + counts.accepted,
        failed=summary.failed + counts.failed,
        unchanged=summary.unchanged + counts.unchanged,
    )


def _prune(
    database: Database, catalog_id: int, summary: ImportSummary, *, whole: bool
) -> ImportSummary:
    with database.begin() as connection:
        if whole and summary.accepted + summary.unchanged > 0:
            gone = catalogs.prune(connection, catalog_id=catalog_id, import_id=summary.import_id)
            return replace(summary, gone=gone)
        # A share that is not mounted must not empty the catalogue.
        notice = _notice("not_pruned", "the source was not read to its end, or held no good row")
        record_failures(connection, [notice], import_id=summary.import_id)
        return summary


def _finish(database: Database, import_id: int, *notices: ImportFailure) -> None:
    with database.begin() as connection:
        record_failures(connection, notices, import_id=import_id)
        catalogs.finish_import(connection, import_id)


def _notice(reason: str, why: str) -> ImportFailure:
    return ImportFailure(
        kind=SubjectKind.LINE,
        subject="",
        reason=reason,
        message=f"{why}; import the source again, what is in already is skipped",
        fatal=False,
    )
