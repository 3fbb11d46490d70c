"""Failures of single subjects of a job, and notices that are not fatal."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from sqlalchemy import Connection

from nightshift.schema.errors import InputError
from nightshift.schema.states import Stage, SubjectKind
from nightshift.stores.failures import record_failure

__all__ = ["Outcome", "record_outcomes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One subject's failure or notice."""

    subject_id: str
    reason: str
    message: str
    fatal: bool

    @classmethod
    def of_error(cls, subject_id: str, error: InputError) -> Self:
        """A failure of this subject alone."""
        return cls(
            subject_id=subject_id,
            reason=error.reason or "bad_input",
            message=str(error),
            fatal=True,
        )

    @classmethod
    def notice(cls, subject_id: str, reason: str, message: str) -> Self:
        """Something that the operator should know though the subject went through."""
        return cls(subject_id=subject_id, reason=reason, message=message, fatal=False)


def record_outcomes(
    connection: Connection,
    run_id: int,
    stage: Stage,
    kind: SubjectKind,
    outcomes: Iterable[Outcome],
) -> None:
    """Keep them, inside the transaction that marks the job done."""
    for outcome in outcomes:
        record_failure(
            connection,
            run_id=run_id,
            stage=stage.value,
            subject_kind=kind,
            subject_id=outcome.subject_id,
            reason=outcome.reason,
            message=outcome.message,
            fatal=outcome.fatal,
        )
