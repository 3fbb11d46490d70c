"""Failures and notices of runs: recorded, counted and listed."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from nightshift.schema.states import SubjectKind
from nightshift.stores.files.addresses import without_password

__all__ = [
    "FailureCount",
    "FailureRow",
    "count_failures",
    "list_failures",
    "record_failure",
    "record_notice_of_run",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureCount:
    """How often one thing went wrong in one stage."""

    stage: str
    reason: str
    fatal: bool
    count: int
    #: One of the messages.
    example: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRow:
    """What went wrong, with which thing."""

    stage: str
    subject_kind: str
    subject_id: str
    reason: str
    message: str
    #: False for a notice, such as a cut text.
    fatal: bool
    created_at: datetime


def count_failures(connection: Connection, run_id: int) -> list[FailureCount]:
    """Failures of a run and of reading its queries, by reason, the most frequent first."""
    rows = connection.execute(
        text(
            f"""
            SELECT failure.stage, reason, fatal, count(*) AS count, min(message) AS example
            {_OF_RUN} GROUP BY failure.stage, reason, fatal ORDER BY fatal DESC, count DESC, reason
            """
        ),
        {"run": run_id},
    )
    return [FailureCount(**row) for row in rows.mappings()]


def list_failures(
    connection: Connection, run_id: int, limit: int | None = None
) -> list[FailureRow]:
    """Failures of a run and of reading its queries, oldest first."""
    rows = connection.execute(
        text(
            f"""
            SELECT failure.stage, subject_kind, subject_id, reason, message, fatal,
                failure.created_at
            {_OF_RUN} ORDER BY failure.id LIMIT :limit
            """
        ),
        {"run": run_id, "limit": limit},
    )
    return [FailureRow(**row) for row in rows.mappings()]


def record_failure(
    connection: Connection,
    *,
    run_id: int,
    stage: str,
    subject_kind: SubjectKind,
    subject_id: str,
    reason: str,
    message: str,
    fatal: bool = True,
) -> None:
    """Keep a failure of a run, once a subject and stage."""
    connection.execute(
        text(
            """
            INSERT INTO failure (run_id, stage, subject_kind, subject_id, reason, message, fatal)
            VALUES (:run, :stage, :kind, :subject, :reason, :message, :fatal)
            ON CONFLICT (run_id, stage, subject_kind, subject_id) WHERE run_id IS NOT NULL
            DO UPDATE SET reason = excluded.reason, message = excluded.message
            """
        ),
        {
            "run": run_id,
            "stage": stage,
            "kind": subject_kind.value,
            "subject": subject_id,
            "reason": reason,
            "message": without_password(message).replace("\x00", "�"),
            "fatal": fatal,
        },
    )


def record_notice_of_run(
    connection: Connection, run_id: int, *, stage: str, about: str, reason: str, message: str
) -> None:
    """Keep what every job of a stage says alike: once, and later jobs do not wait for the row."""
    connection.execute(
        text(
            """
            INSERT INTO failure (run_id, stage, subject_kind, subject_id, reason, message, fatal)
            VALUES (:run, :stage, 'job', :subject, :reason, :message, false)
            ON CONFLICT (run_id, stage, subject_kind, subject_id) WHERE run_id IS NOT NULL
            DO NOTHING
            """
        ),
        {
            "run": run_id,
            "stage": stage,
            "subject": about,
            "reason": reason,
            "message": message,
        },
    )


_OF_RUN = """
    FROM failure WHERE run_id = :run
        OR query_set_id = (SELECT query_set_id FROM run WHERE id = :run)
"""
