"""Failures of imports and of query sets: written by batches, listed for the operator."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from nightshift.schema.states import SubjectKind
from nightshift.stores.files.addresses import without_password

__all__ = [
    "ImportFailure",
    "failures_of_import",
    "notices_of_import",
    "plain",
    "reasons_of_import",
    "record_failures",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportFailure:
    """What could not be taken in, and why."""

    #: A line while its id is unknown or no good, else the item or query.
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
    """Keep failures of one import or of one query set."""
    if not failures:
        return
    connection.execute(
        text(
            """
            INSERT INTO failure (import_id, query_set_id, stage, subject_kind, subject_id, reason,
                message, fatal)
            SELECT :import, :queries, 'import', * FROM unnest(CAST(:kinds AS text[]),
                CAST(:subjects AS text[]), CAST(:reasons AS text[]), CAST(:messages AS text[]),
                CAST(:fatal AS boolean[]))
            """
        ),
        {
            "import": import_id,
            "queries": query_set_id,
            "kinds": [failure.kind.value for failure in failures],
            "subjects": [plain(failure.subject) for failure in failures],
            "reasons": [failure.reason for failure in failures],
            "messages": [plain(without_password(failure.message)) for failure in failures],
            "fatal": [failure.fatal for failure in failures],
        },
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
    rows = connection.execution_options(stream_results=True, yield_per=1000).execute(
        text(
            "SELECT subject_kind, subject_id, reason, message, fatal FROM failure "
            "WHERE import_id = :import AND (CAST(:reason AS text) IS NULL OR reason = :reason) "
            "ORDER BY id"
        ),
        {"import": import_id, "reason": reason},
    )
    for row in rows:
        yield ImportFailure(
            kind=SubjectKind(row.subject_kind),
            subject=row.subject_id,
            reason=row.reason,
            message=row.message,
            fatal=row.fatal,
        )


def reasons_of_import(connection: Connection, import_id: int) -> Counter[str]:
    """How many rows failed for which reason."""
    rows = connection.execute(
        text(
            "SELECT reason, count(*) AS n FROM failure WHERE import_id = :import AND fatal "
            "GROUP BY reason"
        ),
        {"import": import_id},
    )
    return Counter({row.reason: int(row.n) for row in rows})


def notices_of_import(connection: Connection, import_id: int) -> list[str]:
    """What the operator should know beside the failures."""
    rows = connection.execute(
        text("SELECT message FROM failure WHERE import_id = :import AND NOT fatal ORDER BY id"),
        {"import": import_id},
    )
    return [row.message for row in rows]


def plain(value: str) -> str:
    """A text that Postgres takes, whatever bytes its source held; at most 2,000 characters."""
    escaped = value.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")
    return escaped if len(escaped) <= 2000 else f"{escaped[:1999]}…"
