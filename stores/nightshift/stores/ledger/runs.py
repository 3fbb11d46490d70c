"""Runs as rows of Postgres: read by kind, moved to their next stage or state, failed."""

import logging
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, Row, Select, func, select, text, update

from nightshift.schema.errors import ConflictError, NightshiftError, NotFoundError
from nightshift.schema.ledger_tables import Job, Run
from nightshift.schema.params import IndexParams, RerankParams, TokenParams
from nightshift.schema.plans import IndexPlan, RerankControl, RerankPlan, RunPlan, TokenPlan
from nightshift.schema.query_tables import QuerySet
from nightshift.schema.result_tables import PARTITIONED_TABLES
from nightshift.schema.states import JobState, RunKind, RunState, Stage, SubjectKind
from nightshift.schema.tables import Catalog, IndexVersion, Model
from nightshift.stores.failures import record_failure
from nightshift.stores.ledger.run_types import AnyRun, IndexRun, RerankRun, TokenRun

__all__ = [
    "active_runs",
    "fail_run",
    "get_run",
    "list_runs",
    "lock_run",
    "move_to_stage",
    "refresh_statistics",
    "set_run_state",
    "unfinished_runs",
]

_log = logging.getLogger(__name__)


def get_run(connection: Connection, run_id: int) -> AnyRun:
    """A run by its id.

    Raises:
        NotFoundError: Where there is none.
        NightshiftError: Its parameters were written by another release.
    """
    row = connection.execute(_RUNS.where(Run.id == run_id)).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no run {run_id}; `nightshift run list` shows them")
    return _to_run(row)


def list_runs(connection: Connection, limit: int = 50) -> list[AnyRun]:
    """The newest runs first."""
    return _read_runs(connection, _RUNS.order_by(Run.id.desc()).limit(limit))


def active_runs(connection: Connection) -> list[AnyRun]:
    """Runs in state `running`, the most urgent and oldest first."""
    running = _RUNS.where(Run.state == RunState.RUNNING)
    return _read_runs(connection, running.order_by(Run.priority, Run.id))


def unfinished_runs(connection: Connection) -> list[AnyRun]:
    """Runs that are running or paused, the oldest first."""
    unfinished = _RUNS.where(Run.state.in_([RunState.RUNNING, RunState.PAUSED]))
    return _read_runs(connection, unfinished.order_by(Run.id))


def refresh_statistics(connection: Connection, run_id: int, table: str) -> None:
    """Let the planner of Postgres see a partition that a stage has just filled."""
    assert table in PARTITIONED_TABLES
    connection.exec_driver_sql(f"ANALYZE {table}_r{run_id}")


def lock_run(connection: Connection, run_id: int) -> AnyRun | None:
    """A running run, locked; None where it is not running or another planner has it.

    Postgres ends the transaction of a planner that froze in it. Rows that refer to the run, such
    as failures, can be written meanwhile.
    """
    connection.execute(_END_WHEN_IDLE)
    locked_id = connection.execute(
        select(Run.id)
        .where(Run.id == run_id, Run.state == RunState.RUNNING)
        .with_for_update(key_share=True, skip_locked=True)
    ).scalar()
    return None if locked_id is None else get_run(connection, run_id)


def move_to_stage(
    connection: Connection,
    run_id: int,
    stage: Stage,
    *,
    plan: RunPlan | None = None,
    control: RerankControl | None = None,
) -> None:
    """Begin a stage.

    Args:
        connection: The transaction that adds the jobs of the stage.
        run_id: The run, locked.
        stage: The stage.
        plan: The counts of the run; None leaves them as they are.
        control: Its control state; None leaves it as it is.
    """
    values: dict[str, Any] = {"stage": stage}
    if plan is not None:
        values["plan"] = plan.to_json()
    if control is not None:
        values |= control.model_dump()
    connection.execute(update(Run).where(Run.id == run_id).values(**values))


def set_run_state(connection: Connection, run_id: int, state: RunState) -> None:
    """Move a run to a state that its present one allows.

    Raises:
        NotFoundError: Where there is no such run.
        ConflictError: Where the step is not allowed, such as pausing a finished run.
    """
    ended = state in (RunState.DONE, RunState.FAILED, RunState.CANCELLED)
    changed = connection.execute(
        update(Run)
        .where(Run.id == run_id, Run.state.in_(_STATES_BEFORE[state]))
        .values(state=state, finished_at=func.clock_timestamp() if ended else None)
    )
    if changed.rowcount != 1:
        present = get_run(connection, run_id).state
        raise ConflictError(f"run {run_id} is {present.value} and cannot become {state.value}")
    if state is RunState.RUNNING:
        # Workers dropped this run's messages while it was paused; send them again.
        connection.execute(
            update(Job)
            .where(Job.run_id == run_id, Job.state == JobState.QUEUED)
            .values(sent_at=None)
        )


def fail_run(connection: Connection, run_id: int, stage: Stage, reason: str, message: str) -> None:
    """Fail a running run as a whole, with its reason; its queued jobs are never claimed."""
    set_run_state(connection, run_id, RunState.FAILED)
    connection.execute(
        update(Job)
        .where(Job.run_id == run_id, Job.state == JobState.RUNNING)
        .values(state=JobState.QUEUED, lease_until=None, worker_id=None)
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


# Lets Postgres end the transaction of a process that does nothing in it for ten seconds.
_END_WHEN_IDLE = text("SET LOCAL idle_in_transaction_session_timeout = '10s'")

#: State → the states from which a run may move to it.
_STATES_BEFORE = {
    RunState.PAUSED: (RunState.RUNNING,),
    RunState.RUNNING: (RunState.PAUSED,),
    RunState.CANCELLED: (RunState.RUNNING, RunState.PAUSED),
    RunState.DONE: (RunState.RUNNING,),
    RunState.FAILED: (RunState.RUNNING,),
}

_RUNS: Select[Any] = (
    select(
        Run.__table__,
        Catalog.name.label("catalog"),
        IndexVersion.name.label("index_name"),
        IndexVersion.collection,
        IndexVersion.embedder,
        IndexVersion.embedder_fingerprint,
        IndexVersion.parts.label("index_parts"),
        QuerySet.name.label("query_set"),
        Model.number.label("scorer_number"),
    )
    .join(Catalog, Catalog.id == Run.catalog_id)
    .outerjoin(IndexVersion, IndexVersion.id == Run.index_id)
    .outerjoin(QuerySet, QuerySet.id == Run.query_set_id)
    .outerjoin(Model, Model.fingerprint == Run.scorer_fingerprint)
)


def _read_runs(connection: Connection, statement: Select[Any]) -> list[AnyRun]:
    """Read runs; one that another release wrote is left out, so that it stops no other run."""
    runs = []
    for row in connection.execute(statement):
        try:
            runs.append(_to_run(row))
        except NightshiftError as error:
            _log.warning("%s", error)
    return runs


def _to_run(row: Row[Any]) -> AnyRun:
    try:
        return _TO_RUN[row.kind](row)
    except ValidationError as error:
        raise NightshiftError(
            f"run {row.id} was planned by another release of nightshift, and its parameters cannot "
            f"be read: plan it again, or use that release ({error.error_count()} errors, such as "
            f"{error.errors()[0]['msg']!r})"
        ) from error


def _to_index_run(row: Row[Any]) -> IndexRun:
    return IndexRun(
        **_common_fields(row),
        **_index_fields(row),
        params=IndexParams.model_validate(row.params),
        plan=IndexPlan.model_validate(row.plan),
    )


def _to_rerank_run(row: Row[Any]) -> RerankRun:
    return RerankRun(
        **_common_fields(row),
        **_index_fields(row),
        query_set_id=row.query_set_id,
        query_set=row.query_set,
        token_set_id=row.token_set_id,
        scorer=row.scorer,
        scorer_fingerprint=row.scorer_fingerprint,
        scorer_number=row.scorer_number,
        params=RerankParams.model_validate(row.params),
        plan=RerankPlan.model_validate(row.plan),
        control=RerankControl(**{name: getattr(row, name) for name in RerankControl.model_fields}),
    )


def _to_token_run(row: Row[Any]) -> TokenRun:
    return TokenRun(
        **_common_fields(row),
        token_set_id=row.token_set_id,
        vision=row.scorer,
        vision_fingerprint=row.scorer_fingerprint,
        params=TokenParams.model_validate(row.params),
        plan=TokenPlan.model_validate(row.plan),
    )


_TO_RUN: dict[RunKind, Callable[[Row[Any]], AnyRun]] = {
    RunKind.INDEX: _to_index_run,
    RunKind.RERANK: _to_rerank_run,
    RunKind.TOKENS: _to_token_run,
}


def _common_fields(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.id,
        "state": row.state,
        "stage": row.stage,
        "catalog_id": row.catalog_id,
        "catalog": row.catalog,
        "revision": row.revision,
        "priority": row.priority,
        "created_at": row.created_at,
        "finished_at": row.finished_at,
    }


def _index_fields(row: Row[Any]) -> dict[str, Any]:
    return {
        "index_id": row.index_id,
        "index_name": row.index_name,
        "collection": row.collection,
        "embedder": row.embedder,
        "embedder_fingerprint": row.embedder_fingerprint,
        "index_parts": row.index_parts,
    }
