"""Check rows: fields first, then images in threads; the order of the rows is kept."""

import hashlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

from nightshift.producers.column_summary import ColumnSummary
from nightshift.producers.known_images import FoundImage, KnownImages, Readings
from nightshift.producers.sources.fields import Draft, FieldNames, RawPart, draft_of
from nightshift.producers.sources.rows import BadRow, EmbeddedImage, RawRow, Row
from nightshift.producers.sources.skipped_files import SkippedFiles
from nightshift.schema.errors import InputError, NightshiftError
from nightshift.schema.identity import content_hashes
from nightshift.schema.records import ImagePart, Part, TextPart
from nightshift.schema.states import SubjectKind
from nightshift.stores.catalog.catalogs import CheckedRecord
from nightshift.stores.catalog.import_failures import ImportFailure
from nightshift.stores.files.addresses import MemberAddress, is_url
from nightshift.stores.files.blobs import BlobStore
from nightshift.stores.files.files import sha256, stamp_of
from nightshift.stores.files.images import verify_bytes, verify_image
from nightshift.stores.files.roots import ImageRoots

__all__ = ["RejectedRow", "RowChecker", "Verify", "batches", "rejected_line"]

_log = logging.getLogger(__name__)

#: Which local images an import decodes: new and changed ones, all, or none.
Verify = Literal["changed", "always", "never"]

#: A group of rows ends at either limit; a single row may have more bytes. Two groups are in memory
#: at the same time.
_GROUP_ROWS = 32
_GROUP_BYTES = 64 * 2**20
#: A batch ends at either limit.
_BATCH_ROWS = 1000
_BATCH_CHARS = 8 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedRow:
    """A row that is not imported, and its failure."""

    failure: ImportFailure
    #: Id of the item or query, if it is known.
    external_id: str | None = None
    #: True if the rest of its file could not be read.
    ends_file: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RowChecker:
    """Turns rows into checked records, or into rejected rows with a reason.

    Args:
        names: The fields that hold id, text, image and parts.
        kind: The subject of a failure whose row has an id: item or query.
        verify: The local images to decode, so that a broken one fails now.
        known: Images that earlier imports read; None reads all.
        blobs: Stores images that came in the cells of a Parquet file.
        roots: Folders and URLs below which images of rows may lie.
        skipped: That of the reader.
    """

    names: FieldNames
    kind: SubjectKind
    verify: Verify = "changed"
    known: KnownImages | None = None
    blobs: BlobStore | None = None
    roots: ImageRoots = field(default_factory=ImageRoots)
    #: The columns of the checked rows.
    columns: ColumnSummary = field(default_factory=ColumnSummary)
    #: Files of the source that no reader takes; complete once its rows are read.
    skipped: SkippedFiles = field(default_factory=SkippedFiles)

    def records(self, rows: Iterable[Row]) -> Iterator[CheckedRecord | RejectedRow]:
        """Yield a record or a rejected row for each row, in order; a few rows are read ahead."""
        threads = min(8, os.cpu_count() or 1)
        with ThreadPoolExecutor(threads, thread_name_prefix="row-checks") as pool:
            waiting: deque[CheckedRecord | RejectedRow | Future[CheckedRecord | RejectedRow]] = (
                deque()
            )
            try:
                for group in _groups(rows):
                    drafts = [self._draft(row) for row in group]
                    waiting.extend(self._begin(drafts, pool))
                    while len(waiting) > len(group):
                        yield _outcome(waiting.popleft())
                while waiting:
                    yield _outcome(waiting.popleft())
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _draft(self, row: Row) -> Draft | RejectedRow:
        if isinstance(row, BadRow):
            return rejected_line(row)
        self.columns.look_at(row.fields)
        try:
            return draft_of(row, self.names)
        except InputError as error:
            return self.rejected(error, row.position)
        except Exception as error:  # noqa: BLE001 - no row may end the import
            return self.rejected(_unexpected(error), row.position)

    def _begin(
        self, drafts: list[Draft | RejectedRow], pool: ThreadPoolExecutor
    ) -> Iterator[CheckedRecord | RejectedRow | Future[CheckedRecord | RejectedRow]]:
        """Check the texts of some rows at once, and their images in threads."""
        readings: Readings = {}
        if self.known:
            readings = self.known.look_up(row for row in drafts if isinstance(row, Draft))
        for draft in drafts:
            if isinstance(draft, RejectedRow):
                yield draft
            elif all(isinstance(part, TextPart) for part in draft.parts):
                yield self._finish(draft, readings)
            else:
                yield pool.submit(self._finish, draft, readings)

    def _finish(self, draft: Draft, readings: Readings) -> CheckedRecord | RejectedRow:
        try:
            parts = tuple(self._look_at(part, readings) for part in draft.parts)
        except InputError as error:
            return self.rejected(InputError(error.message, error.reason, draft.id), draft.position)
        except NightshiftError:
            raise
        except Exception as error:  # noqa: BLE001 - no image may end the import
            return self.rejected(_unexpected(error, draft.id), draft.position)
        return CheckedRecord(
            position=draft.position,
            external_id=draft.id,
            parts=parts,
            hashes=content_hashes(parts),
            metadata=draft.metadata,
        )

    def _look_at(self, part: RawPart, readings: Readings) -> Part:
        if isinstance(part, TextPart):
            return part
        if isinstance(part, EmbeddedImage):
            return self._look_at_bytes(part, readings)
        self.roots.check(part.uri)
        member = MemberAddress.parse(part.uri)
        if is_url(member.archive if member else part.uri):
            # The worker that needs it fetches it; until then it is identified by its address.
            return part
        stamp = stamp_of(part.uri, noun="image", roots=self.roots) if self.known else ""
        image = FoundImage(address=part.uri, stamp=stamp)

        def read() -> str:
            if self._decodes:
                return verify_image(part.uri, roots=self.roots).sha256
            return sha256(part.uri, noun="image", roots=self.roots)

        return ImagePart(uri=part.uri, sha256=self._digest_of(image, readings, read))

    def _look_at_bytes(self, part: EmbeddedImage, readings: Readings) -> Part:
        image = (
            FoundImage(address=part.address, stamp=part.stamp)
            if part.address
            else FoundImage.of_bytes(part.data)
        )

        def read() -> str:
            if self._decodes:
                return verify_bytes(part.data, part.address or "the image in the row").sha256
            return _digest(part.data)

        digest = self._digest_of(image, readings, read)
        return ImagePart(uri=part.address or self._keep(part.data), sha256=digest)

    def _digest_of(self, image: FoundImage, readings: Readings, read: Callable[[], str]) -> str:
        """The digest of an image, which is read only if it is new or has changed."""
        known = image.digest_in(readings, decoded=self._decodes)
        if known is not None:
            return known
        digest = read()
        if self.known:
            self.known.add(image, digest, decoded=self._decodes)
        return digest

    @property
    def _decodes(self) -> bool:
        return self.verify != "never"

    def _keep(self, data: bytes) -> str:
        if self.blobs is None:
            raise InputError(
                "the image came inside the file, and there is no blob store to store it in",
                "no_blob_store",
            )
        return self.blobs.put(data)

    def notices(self) -> list[ImportFailure]:
        """Notices about the source once it is read, beside the failures."""
        if not self.skipped.count:
            return []
        return [
            ImportFailure(
                kind=SubjectKind.LINE,
                subject="",
                reason="left_out",
                message=self.skipped.message(),
                fatal=False,
            )
        ]

    def duplicate(self, position: str, external_id: str) -> ImportFailure:
        """The failure of a row whose id an earlier row has."""
        return ImportFailure(
            kind=self.kind,
            subject=external_id,
            reason="duplicate_id",
            message=f"{position}: an earlier row of the source has the id "
            f"{external_id!r} and was imported; give each row its own id",
        )

    def rejected(self, error: InputError, position: str) -> RejectedRow:
        """A rejected row; the subject is its id if the error names it, otherwise its position."""
        return RejectedRow(
            failure=ImportFailure(
                kind=self.kind if error.subject_id else SubjectKind.LINE,
                subject=error.subject_id or position,
                reason=error.reason,
                message=f"{position}: {error.message}",
            ),
            external_id=error.subject_id or None,
        )


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows in groups whose images are looked up at once, and held in memory together."""
    group: list[Row] = []
    n_bytes = 0
    for row in rows:
        group.append(row)
        n_bytes += row.n_bytes() if isinstance(row, RawRow) else 0
        if len(group) == _GROUP_ROWS or n_bytes > _GROUP_BYTES:
            yield group
            group, n_bytes = [], 0
    if group:
        yield group


def rejected_line(row: BadRow) -> RejectedRow:
    """A rejected row that could not be read."""
    failure = ImportFailure(
        kind=SubjectKind.LINE, subject=row.position, reason=row.reason, message=row.message
    )
    return RejectedRow(failure=failure, external_id=row.default_id, ends_file=row.ends_file)


def batches(
    records: Iterable[CheckedRecord | RejectedRow],
) -> Iterator[list[CheckedRecord | RejectedRow]]:
    """Group records into lists that one statement can carry."""
    batch: list[CheckedRecord | RejectedRow] = []
    size = 0
    for record in records:
        batch.append(record)
        size += _size(record)
        if len(batch) >= _BATCH_ROWS or size >= _BATCH_CHARS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _size(record: CheckedRecord | RejectedRow) -> int:
    if isinstance(record, RejectedRow):
        return 0
    texts = (part.text for part in record.parts if isinstance(part, TextPart))
    return len(record.metadata) + sum(map(len, texts))


def _unexpected(error: Exception, subject: str = "") -> InputError:
    _log.warning("unexpected error in a row", exc_info=error)
    return InputError(
        f"the row cannot be imported ({type(error).__name__}: {error!s:.300}); "
        "leave it out, and report it",
        "row_malformed",
        subject,
    )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _outcome(
    waiting: CheckedRecord | RejectedRow | Future[CheckedRecord | RejectedRow],
) -> CheckedRecord | RejectedRow:
    return waiting.result() if isinstance(waiting, Future) else waiting
