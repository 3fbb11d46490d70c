"""Import a file of queries as an immutable set, with judgements where there are any."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import PurePosixPath

from sqlalchemy import Connection

from nightshift.producers.judgements import open_judgements, split_judgements
from nightshift.producers.known_images import KnownImages
from nightshift.producers.row_checks import (
    RejectedRow,
    RowChecker,
    Verify,
    batches,
    rejected_line,
)
from nightshift.producers.sources import BadRow, FieldNames, SkippedFiles, open_source
from nightshift.schema.errors import InputError
from nightshift.schema.states import SubjectKind
from nightshift.stores.catalog import query_sets
from nightshift.stores.catalog.catalogs import CheckedRecord
from nightshift.stores.catalog.import_failures import ImportFailure, record_failures
from nightshift.stores.catalog.query_sets import Judgement
from nightshift.stores.files.addresses import is_url
from nightshift.stores.files.blobs import BlobStore
from nightshift.stores.files.globs import root_of
from nightshift.stores.files.roots import ImageRoots
from nightshift.stores.postgres.database import Database

__all__ = ["QuerySetSummary", "import_queries", "read_queries"]

_JUDGEMENTS_AT_ONCE = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class QuerySetSummary:
    """A query set, new or found."""

    query_set_id: int
    n_queries: int
    #: Reason → rows of the file, and of its qrels, that could not be taken.
    reasons: Mapping[str, int]
    #: About the first of them.
    first_message: str = ""
    #: What nobody reads of the file or folder; empty where all of it is read.
    left_out: str = ""

    @property
    def failed(self) -> int:
        """Rows that could not be taken."""
        return sum(self.reasons.values())


def import_queries(
    database: Database,
    file: str,
    *,
    name: str | None = None,
    qrels: str | None = None,
    mapping: FieldNames | None = None,
    verify: Verify = "changed",
    blobs: BlobStore | None = None,
    image_roots: Sequence[str] = (),
) -> QuerySetSummary:
    """`read_queries` in a transaction of its own, so that nobody sees half a set.

    Raises:
        NotFoundError: Where there is no such file.
        ConfigurationError: Where it has no known format.
        InputError: Where not one query could be taken; the reasons are kept with the set.
    """
    with database.begin() as connection:
        summary = read_queries(
            connection,
            file,
            name=name,
            qrels=qrels,
            mapping=mapping,
            verify=verify,
            blobs=blobs,
            image_roots=image_roots,
        )
    if summary.n_queries == 0:
        raise InputError(
            f"{file} holds no query that can be used ({summary.first_message or 'it is empty'}); "
            "every reason is in the table failure under query_set_id "
            f"{summary.query_set_id}",
            "no_queries",
        )
    return summary


def read_queries(
    connection: Connection,
    file: str,
    *,
    name: str | None = None,
    qrels: str | None = None,
    mapping: FieldNames | None = None,
    verify: Verify = "changed",
    blobs: BlobStore | None = None,
    image_roots: Sequence[str] = (),
) -> QuerySetSummary:
    """Read queries as a catalogue is read; the same content under the same name is the same set.

    Args:
        connection: A transaction of its own.
        file: Any source that a catalogue may come from. Rows may list item ids in `relevant`.
        name: The set's name; the file's without extensions if none is given.
        qrels: A file of judgements, TREC or JSON Lines.
        mapping: Fields that are not called `id`, `text`, `image` or `parts`.
        verify: The local images to decode now, as for `import_catalog`.
        blobs: Keeps images that come in Parquet cells.
        image_roots: Folders and URLs below which images may lie, beside that of the file.

    Raises:
        NotFoundError: Where there is no such file.
        ConfigurationError: Where it has no known format.
    """
    skipped = SkippedFiles()
    rows = open_source(file, skipped)
    judgements = open_judgements(qrels) if qrels else iter(())
    checker = RowChecker(
        names=mapping or FieldNames(),
        kind=SubjectKind.QUERY,
        verify=verify,
        known=KnownImages(connect=lambda: nullcontext(connection), trusted=verify != "always"),
        blobs=blobs,
        roots=ImageRoots([root_of(file), *image_roots]),
        skipped=skipped,
    )
    # What follows the path of a URL may be a signature.
    path = file.partition("?")[0] if is_url(file) else file
    name = name or PurePosixPath(path.rstrip("/")).name.partition(".")[0] or "queries"
    making = _SetInMaking(connection, query_sets.begin_set(connection, name), checker)
    for batch in batches(checker.records(rows)):
        making.add(batch)
        if checker.known:
            checker.known.write(connection)
    for chunk in _chunks(judgements):
        making.judge(chunk)
    return QuerySetSummary(
        query_set_id=making.close(name),
        n_queries=making.n_queries,
        reasons=making.reasons,
        first_message=making.first_message,
        left_out=skipped.message(),
    )


@dataclass(slots=True)
class _SetInMaking:
    """A set whose digest is not known before its last row."""

    connection: Connection
    set_id: int
    checker: RowChecker
    n_queries: int = 0
    n_foreign: int = 0
    first_message: str = ""
    reasons: Counter[str] = field(default_factory=Counter)
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def add(self, batch: list[CheckedRecord | RejectedRow]) -> None:
        rows = [_split(row, self.checker) for row in batch]
        self._fail([row.failure for row, _ in rows if isinstance(row, RejectedRow)])
        queries = [(row, own) for row, own in rows if isinstance(row, CheckedRecord)]
        taken = query_sets.add_queries(self.connection, self.set_id, [row for row, _ in queries])
        judgements: list[Judgement | BadRow] = []
        for (record, own), is_first in zip(queries, taken, strict=True):
            if is_first:
                self.n_queries += 1
                self._digest(record.external_id, record.hashes.both.hex(), record.metadata)
                judgements += own
            else:
                self._fail([self.checker.duplicate(record.position, record.external_id)])
        self.judge(judgements)

    def judge(self, rows: list[Judgement | BadRow]) -> None:
        self._fail([rejected_line(row).failure for row in rows if isinstance(row, BadRow)])
        judgements = [row for row in rows if isinstance(row, Judgement)]
        for judgement in judgements:
            self._digest(judgement.query, judgement.item, str(judgement.relevance))
        self.n_foreign += query_sets.add_judgements(self.connection, self.set_id, judgements)

    def close(self, name: str) -> int:
        """Seal the set, or drop it where it is there already; the id of the one that stays."""
        query_sets.lock_name(self.connection, name)
        digest = self.digest.digest()
        known = query_sets.find_set(self.connection, name, digest)
        if known is not None:
            query_sets.drop_set(self.connection, self.set_id)
            return known
        record_failures(self.connection, self.checker.notices(), query_set_id=self.set_id)
        if self.n_foreign:
            record_failures(self.connection, [_foreign(self.n_foreign)], query_set_id=self.set_id)
        query_sets.seal_set(
            self.connection, self.set_id, content_hash=digest, n_queries=self.n_queries
        )
        return self.set_id

    def _fail(self, failures: list[ImportFailure]) -> None:
        for failure in failures:
            self.first_message = self.first_message or failure.message
            self._digest("failed", failure.subject, failure.reason)
            self.reasons[failure.reason] += 1
        record_failures(self.connection, failures, query_set_id=self.set_id)

    def _digest(self, *facts: str) -> None:
        for fact in facts:
            encoded = fact.encode("utf-8", "backslashreplace")
            self.digest.update(len(encoded).to_bytes(8, "big") + encoded)


def _split(
    row: CheckedRecord | RejectedRow, checker: RowChecker
) -> tuple[CheckedRecord | RejectedRow, list[Judgement]]:
    if isinstance(row, RejectedRow):
        return row, []
    try:
        return split_judgements(row)
    except InputError as error:
        named = InputError(error.message, error.reason, row.external_id)
        return checker.rejected(named, row.position), []


def _foreign(count: int) -> ImportFailure:
    return ImportFailure(
        kind=SubjectKind.LINE,
        subject="",
        reason="unknown_query",
        message=f"{count} judgements name queries that are not in this set; they were left out",
        fatal=False,
    )


def _chunks(rows: Iterator[Judgement | BadRow]) -> Iterator[list[Judgement | BadRow]]:
    while chunk := list(islice(rows, _JUDGEMENTS_AT_ONCE)):
        yield chunk
