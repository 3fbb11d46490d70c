"""Failures and notices of runs: recorded, counted and listed."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, func, or_, select
from sqlalchemy.dialects.postgresql import insert

from nightshift.schema.columns_of import columns_of
from nightshift.schema.ledger_tables import Failure, Run
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
    """Failures of one stage with the same reason."""

    stage: str
    reason: str
    fatal: bool
    count: int
    #: One of the messages.
    example: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRow:
    """One failure or notice: what went wrong, and for which subject."""

    stage: str
    subject_kind: str
    subject_id: str
    reason: str
    message: str
    #: False for a notice, such as a cut text.
    fatal: bool
    created_at: datetime


def count_failures(connection: Connection, run_id: int) -> list[FailureCount]:
    """Count failures of a run and of importing its queries, the most frequent reasons first."""
    failures = func.count().label("count")
    rows = connection.execute(
        select(
            Failure.stage,
            Failure.reason,
            Failure.fatal,
            failures,
            func.min(Failure.message).label("example"),
        )
        .where(_is_of_run(run_id))
        .group_by(Failure.stage, Failure.reason, Failure.fatal)
        .order_by(Failure.fatal.desc(), failures.desc(), Failure.reason)
    )
    return [FailureCount(**row) for row in rows.mappings()]


def list_failures(
    connection: Connection, run_id: int, limit: int | None = None
) -> list[FailureRow]:
    """Failures of a run and of importing its queries, oldest first."""
    rows = connection.execute(
        select(*columns_of(FailureRow, Failure))
        .where(_is_of_run(run_id))
        .order_by(Failure.id)
        .limit(limit)
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
    """Write a failure of a run; there is one for each stage and subject, and the last counts."""
    failure = insert(Failure).values(
        run_id=run_id,
        stage=stage,
        subject_kind=subject_kind,
        subject_id=subject_id,
        reason=reason,
        message=without_password(message).replace("\x00", "\ufffd"),
        fatal=fatal,
    )
    connection.execute(
        failure.on_conflict_do_update(
            index_elements=_SUBJECT,
            index_where=Failure.run_id.is_not(None),
            set_={"reason": failure.excluded.reason, "message": failure.excluded.message},
        )
    )


def record_notice_of_run(
    connection: Connection, run_id: int, *, stage: str, about: str, reason: str, message: str
) -> None:
    """Write what every job of a stage reports alike once; later jobs do not wait for the row."""
    connection.execute(
        insert(Failure)
        .values(
            run_id=run_id,
            stage=stage,
            subject_kind=SubjectKind.JOB,
            subject_id=about,
            reason=reason,
            message=message,
            fatal=False,
        )
        .on_conflict_do_nothing(index_elements=_SUBJECT, index_where=Failure.run_id.is_not(None))
    )


#: What a failure of a run is unique by.
_SUBJECT = [Failure.run_id, Failure.stage, Failure.subject_kind, Failure.subject_id]


def _is_of_run(run_id: int) -> ColumnElement[bool]:
    """Select the failures of a run and of the import of its queries."""
    queries = select(Run.query_set_id).where(Run.id == run_id).scalar_subquery()
    return or_(Failure.run_id == run_id, Failure.query_set_id == queries)
