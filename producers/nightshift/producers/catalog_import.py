"""Import a catalogue: read a source once, stage its rows, compare, decide, apply in one step."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from nightshift.producers.import_limits import (
    ImportLimits,
    Limit,
    ReadCounts,
    prune_refusal_reason,
    refusal_reason,
)
from nightshift.producers.known_images import KnownImages
from nightshift.producers.row_checks import RejectedRow, RowChecker, Verify, batches
from nightshift.producers.sources import FieldNames, Row, SkippedFiles, open_source
from nightshift.schema.errors import ServiceUnavailableError
from nightshift.schema.names import check_name
from nightshift.schema.states import SubjectKind
from nightshift.stores.catalog import catalogs
from nightshift.stores.catalog.catalogs import CheckedRecord, ImportCounts
from nightshift.stores.catalog.comparison import Comparison
from nightshift.stores.catalog.import_failures import ImportFailure, record_failures
from nightshift.stores.catalog.staging import Staging
from nightshift.stores.files.blobs import BlobStore
from nightshift.stores.files.globs import root_of
from nightshift.stores.files.roots import ImageRoots
from nightshift.stores.postgres.database import Database

__all__ = ["ImportLimits", "ImportSummary", "Limit", "import_catalog", "import_rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSummary:
    """The result of an import; at its end, accepted + failed + unchanged + not_applied = read."""

    import_id: int
    #: The revision of the catalogue that it made; 0 where it was refused.
    revision: int = 0
    read: int = 0
    #: New items, changed ones, and ones that are back after they were gone.
    accepted: int = 0
    failed: int = 0
    #: Items whose content, parts and metadata were stored already.
    unchanged: int = 0
    #: Good rows of a refused import, of which nothing is in the catalogue.
    not_applied: int = 0
    #: Live items that the source no longer names; only with `prune`.
    gone: int = 0
    #: Reason of a refusal: `too_many_failures`, `kinds_changed`, `too_many_gone` or empty.
    refused: str = ""
    #: Reason that `prune` was not done although the import was applied; otherwise empty.
    not_pruned: str = ""
    #: The message about either.
    message: str = ""
    #: Failed rows whose ids are unknown.
    unreadable: int = 0
    #: Files that could not be read to their end.
    broken_files: int = 0
    #: Files of the source, or members of its tars, that no reader takes.
    left_out: int = 0
    #: Names of some of them, of every kind.
    left_out_names: Sequence[str] = ()

    def is_clean(self, limits: ImportLimits) -> bool:
        """True if everything requested was done, with no more failures than allowed."""
        allowed = 0 if limits.max_failures is None else limits.max_failures.of(self.read)
        return not (self.refused or self.not_pruned or self.broken_files) and self.failed <= allowed


def import_catalog(
    database: Database,
    name: str,
    source: str,
    *,
    mapping: FieldNames | None = None,
    verify: Verify = "changed",
    blobs: BlobStore | None = None,
    image_roots: Sequence[str] = (),
    prune: bool = False,
    limits: ImportLimits | None = None,
    progress: Callable[[ImportSummary], None] | None = None,
) -> ImportSummary:
    """Import a source into the catalogue of that name; creates the catalogue if there is none.

    Importing the same source again changes nothing; a corrected source adds the rows that failed.
    The catalogue changes in one step at the end, or not at all if a limit is exceeded.

    Args:
        database: A migrated database.
        name: Name of the catalogue.
        source: File, folder or glob pattern; path or fsspec URL.
        mapping: Names of the fields, if they are not `id`, `text`, `image` and `parts`.
        verify: The local images to decode now: those that are new or changed since an import read
            them, all, or none. A broken one that is not decoded fails when it is embedded.
        blobs: Stores images that come in Parquet cells.
        image_roots: Folders and URLs below which images may lie, beside that of the source.
        prune: End the items of this source that it no longer names, if it was read to its end.
        limits: Limits that refuse the import; `prune` may be set there too.
        progress: Called after each batch.

    Raises:
        NotFoundError: When there is no such source.
        ConfigurationError: When no file of it has a known format.
        ConflictError: When a newer import of this catalogue has begun.
        ServiceUnavailableError: When Postgres is lost; the catalogue is unchanged.
    """
    skipped = SkippedFiles()
    rows = open_source(source, skipped)
    checker = RowChecker(
        names=mapping or FieldNames(),
        kind=SubjectKind.ITEM,
        verify=verify,
        known=KnownImages(connect=database.begin, trusted=verify != "always"),
        blobs=blobs,
        roots=ImageRoots([root_of(source), *image_roots]),
        skipped=skipped,
    )
    return import_rows(
        database,
        name,
        source,
        rows,
        checker=checker,
        prune=prune,
        limits=limits,
        progress=progress,
    )


def import_rows(
    database: Database,
    name: str,
    source: str,
    rows: Iterable[Row],
    *,
    checker: RowChecker,
    prune: bool = False,
    limits: ImportLimits | None = None,
    progress: Callable[[ImportSummary], None] | None = None,
) -> ImportSummary:
    """Import rows of any origin; otherwise as `import_catalog`. Rows are staged while read."""
    check_name("catalogue", name)
    limits = limits or ImportLimits()
    limits = replace(limits, prune=limits.prune or prune)
    with database.begin() as connection:
        catalog_id = catalogs.ensure_catalog(connection, name)
        import_id = catalogs.begin_import(connection, catalog_id, source)
    summary = ImportSummary(import_id=import_id)
    try:
        with database.session() as connection:
            with connection.begin():
                staging = Staging(connection, catalog_id, import_id)
            for batch in batches(checker.records(rows)):
                with connection.begin():
                    summary = _stage(connection, staging, summary, batch)
                    if checker.known:
                        checker.known.write(connection)
                if progress:
                    progress(summary)
            with connection.begin():
                return _decide(connection, staging, summary, checker, limits)
    except BaseException as error:
        with suppress(ServiceUnavailableError), database.begin() as connection:
            if catalogs.interrupt_import(connection, import_id):
                notice = _interrupted(error)
                record_failures(connection, [notice], import_id=import_id)
        raise


def _stage(
    connection: Connection,
    staging: Staging,
    summary: ImportSummary,
    batch: Sequence[CheckedRecord | RejectedRow],
) -> ImportSummary:
    rejected = [row for row in batch if isinstance(row, RejectedRow)]
    failed_ids = [row.external_id for row in rejected if row.external_id is not None]
    staging.add([row for row in batch if isinstance(row, CheckedRecord)], failed_ids)
    record_failures(connection, [row.failure for row in rejected], import_id=summary.import_id)
    counts = ImportCounts(read=len(batch), failed=len(rejected))
    catalogs.count_rows(connection, summary.import_id, counts)
    return replace(
        summary,
        read=summary.read + counts.read,
        failed=summary.failed + counts.failed,
        unreadable=summary.unreadable + len(rejected) - len(failed_ids),
        broken_files=summary.broken_files + sum(row.ends_file for row in rejected),
    )


def _decide(
    connection: Connection,
    staging: Staging,
    summary: ImportSummary,
    checker: RowChecker,
    limits: ImportLimits,
) -> ImportSummary:
    """Apply the staged rows or record the refusal, and close the import."""
    comparison = staging.compare()
    n_duplicates = 0
    for page in staging.duplicates():
        n_duplicates += len(page)
        failures = [checker.duplicate(row.position, row.external_id) for row in page]
        record_failures(connection, failures, import_id=summary.import_id)
    summary = replace(summary, failed=summary.failed + n_duplicates)
    read = ReadCounts(
        read=summary.read,
        failed=summary.failed,
        unreadable=summary.unreadable,
        broken_files=summary.broken_files,
    )
    refusal = refusal_reason(limits, read, comparison, checker.columns)
    if refusal is None:
        summary = _apply(connection, staging, summary, comparison, limits, read)
    else:
        reason, message = refusal
        n_good = comparison.accepted + comparison.unchanged
        message = f"the import is refused, and the catalogue is unchanged: {message}"
        record_failures(connection, [_notice(reason, message)], import_id=summary.import_id)
        summary = replace(summary, not_applied=n_good, refused=reason, message=message)
    counts = ImportCounts(
        accepted=summary.accepted,
        failed=n_duplicates,
        unchanged=summary.unchanged,
        not_applied=summary.not_applied,
    )
    catalogs.count_rows(connection, summary.import_id, counts)
    record_failures(connection, checker.notices(), import_id=summary.import_id)
    catalogs.finish_import(connection, summary.import_id)
    skipped = checker.skipped
    return replace(summary, left_out=skipped.count, left_out_names=tuple(skipped.names))


def _apply(
    connection: Connection,
    staging: Staging,
    summary: ImportSummary,
    comparison: Comparison,
    limits: ImportLimits,
    read: ReadCounts,
) -> ImportSummary:
    # A share that is not mounted must not empty the catalogue.
    no_prune_reason = prune_refusal_reason(limits, read, comparison) if limits.prune else None
    prune = limits.prune and no_prune_reason is None
    revision = staging.apply(comparison, prune=prune)
    summary = replace(
        summary,
        revision=revision,
        accepted=comparison.accepted,
        unchanged=comparison.unchanged,
        gone=comparison.leaving if prune else 0,
    )
    if no_prune_reason is not None:
        message = f"no item was marked as gone: {no_prune_reason}"
        record_failures(connection, [_notice("not_pruned", message)], import_id=summary.import_id)
        return replace(summary, not_pruned=no_prune_reason, message=message)
    if prune and comparison.unknown:
        message = (
            f"{comparison.unknown:,} items that this source does not name stay: an earlier release "
            "imported them and did not record from which source. Import the other sources of the "
            "catalogue once, and these items are known again"
        )
        record_failures(
            connection, [_notice("unknown_source", message)], import_id=summary.import_id
        )
    return summary


def _interrupted(error: BaseException) -> ImportFailure:
    return _notice(
        "interrupted",
        f"{type(error).__name__} {error}; the catalogue is unchanged: import the source again",
    )


def _notice(reason: str, message: str) -> ImportFailure:
    return ImportFailure(
        kind=SubjectKind.LINE, subject="", reason=reason, message=message, fatal=False
    )
