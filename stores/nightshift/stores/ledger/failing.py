"""Ending a run that cannot be done."""

from sqlalchemy import Connection, text

from nightshift.schema.states import RunState, Stage, SubjectKind
from nightshift.stores.failures import record_failure
from nightshift.stores.ledger import runs

__all__ = ["fail_run"]


def fail_run(connection: Connection, run_id: int, stage: Stage, reason: str, message: str) -> None:
    """Fail a running run as a whole, with its reason; its queued jobs are never claimed."""
    runs.set_run_state(connection, run_id, RunState.FAILED)
    connection.execute(
        text(
            "UPDATE job SET state = 'queued', lease_until = NULL, worker_id = NULL "
            "WHERE run_id = :run AND state = 'running'"
        ),
        {"run": run_id},
    )
    record_failure(
        connection,
        run_id=run_id,
        stage=stage.value,
        subject_kind=SubjectKind.JOB,
        subject_id=str(run_id),
        reason=reason,
        message=message,
    )
