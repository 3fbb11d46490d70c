"""Failures of imports and of query sets: written in batches, listed for the operator."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select

from nightshift.schema.ledger_tables import Failure
from nightshift.schema.states import SubjectKind
from nightshift.stores.files.addresses import without_password

__all__ = [
    "ImportFailure",
    "failures_of_import",
    "notices_of_import",
    "reasons_of_import",
    "record_failures",
    "storable_text",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportFailure:
    """A row that was not accepted, or a notice, with the reason."""

    #: A line if its id is unknown or invalid, else the item or query.
    kind: SubjectKind
    #: Position in the source, or the id.
    subject: str
    #: Stable code.
    reason: str
    #: What happened and what to do.
    message: str
    #: False for a notice, which is no row and is not counted.
    fatal: bool = True


def record_failures(
    connection: Connection,
    failures: Sequence[ImportFailure],
    *,
    import_id: int | None = None,
    query_set_id: int | None = None,
) -> None:
    """Write failures of one import or of one query set."""
    if not failures:
        return
    connection.execute(
        insert(Failure),
        [
            {
                "import_id": import_id,
                "query_set_id": query_set_id,
                "stage": "import",
                "subject_kind": failure.kind,
                "subject_id": storable_text(failure.subject),
                "reason": failure.reason,
                "message": storable_text(without_password(failure.message)),
                "fatal": failure.fatal,
            }
            for failure in failures
        ],
    )


def failures_of_import(
    connection: Connection, import_id: int, *, reason: str | None = None
) -> Iterator[ImportFailure]:
    """Failures and notices in the order in which they were written.

    Args:
        connection: Used until the last is read.
        import_id: Of a catalogue.
        reason: Only those with this code.
    """
    failures = (
        select(
            Failure.subject_kind,
            Failure.subject_id,
            Failure.reason,
            Failure.message,
            Failure.fatal,
        )
        .where(Failure.import_id == import_id)
        .order_by(Failure.id)
        .execution_options(stream_results=True, yield_per=1000)
    )
    if reason is not None:
        failures = failures.where(Failure.reason == reason)
    for row in connection.execute(failures):
        yield ImportFailure(
            kind=row.subject_kind,
            subject=row.subject_id,
            reason=row.reason,
            message=row.message,
            fatal=row.fatal,
        )


def reasons_of_import(connection: Connection, import_id: int) -> Counter[str]:
    """Count the rows that failed, by reason."""
    rows = connection.execute(
        select(Failure.reason, func.count().label("failures"))
        .where(Failure.import_id == import_id, Failure.fatal)
        .group_by(Failure.reason)
    )
    return Counter({row.reason: int(row.failures) for row in rows})


def notices_of_import(connection: Connection, import_id: int) -> list[str]:
    """Messages for the operator that are not failures."""
    return list(
        connection.scalars(
            select(Failure.message)
            .where(Failure.import_id == import_id, ~Failure.fatal)
            .order_by(Failure.id)
        )
    )


def storable_text(value: str) -> str:
    """Escape what Postgres does not store in a text, and cut it at 2,000 characters."""
    escaped = value.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")
    return escaped if len(escaped) <= 2000 else f"{escaped[:1999]}…"
