"""Runs: created with their partitions, advanced by the dispatcher, paused by people."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, text

from nightshift.schema.errors import ConflictError, NotFoundError
from nightshift.schema.messages import queue_name
from nightshift.schema.result_tables import PARTITIONED_TABLES
from nightshift.schema.states import RunKind, RunState, Stage

__all__ = [
    "RunRow",
    "active_runs",
    "create_run",
    "get_run",
    "list_runs",
    "lock_run",
    "move_to_stage",
    "refresh_statistics",
    "set_run_state",
    "unfinished_runs",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run with what its stages need to know of its index."""

    id: int
    kind: RunKind
    state: RunState
    stage: Stage
    catalog_id: int
    catalog: str
    #: 0, and what follows of the index empty, for a run that makes visual tokens.
    index_id: int
    index_name: str
    collection: str
    embedder: str
    embedder_fingerprint: str
    index_parts: str
    query_set_id: int | None
    query_set: str | None
    #: The visual tokens that it makes, or that its score jobs read.
    token_set_id: int | None
    method: str | None
    scorer: str | None
    scorer_fingerprint: str | None
    params: dict[str, Any]
    plan: dict[str, Any]
    priority: int
    created_at: datetime
    finished_at: datetime | None

    def queue(self) -> str:
        """The queue of the current stage."""
        return queue_name(self.stage, self.model())

    def model(self) -> str | None:
        """Fingerprint of the model that the current stage needs; None where it needs none."""
        return {
            Stage.EMBED: self.embedder_fingerprint,
            Stage.SEARCH: self.embedder_fingerprint,
            Stage.SCORE: self.scorer_fingerprint,
            Stage.RANK: None,
            Stage.ANSWER: self.scorer_fingerprint,
            Stage.CODEBOOK: self.scorer_fingerprint,
            Stage.TOKENS: self.scorer_fingerprint,
        }[self.stage]


def create_run(
    connection: Connection,
    *,
    kind: RunKind,
    stage: Stage,
    catalog_id: int,
    index_id: int | None,
    params: Mapping[str, Any],
    plan: Mapping[str, Any],
    priority: int = 5,
    query_set_id: int | None = None,
    method: str | None = None,
    scorer: str | None = None,
    scorer_fingerprint: str | None = None,
    token_set_id: int | None = None,
) -> int:
    """Insert a run and attach its partitions; its jobs follow in the same transaction."""
    run_id = int(
        connection.execute(
            text(
                """
                INSERT INTO run (kind, stage, catalog_id, index_id, query_set_id, method, scorer,
                    scorer_fingerprint, token_set_id, params, plan, priority)
                VALUES (:kind, :stage, :catalog, :index, :queries, :method, :scorer,
                    :scorer_fingerprint, :token_set, :params, :plan, :priority)
                RETURNING id
                """
            ),
            {
                "kind": kind.value,
                "stage": stage.value,
                "catalog": catalog_id,
                "index": index_id,
                "queries": query_set_id,
                "method": method,
                "scorer": scorer,
                "scorer_fingerprint": scorer_fingerprint,
                "token_set": token_set_id,
                "params": json.dumps(params),
                "plan": json.dumps(plan),
                "priority": priority,
            },
        ).scalar_one()
    )
    connection.execute(text("SELECT make_run_partitions(:run)"), {"run": run_id})
    return run_id


_SELECT = """
    SELECT run.id, run.kind, run.state, run.stage, run.catalog_id, catalog.name AS catalog,
        coalesce(run.index_id, 0) AS index_id, coalesce("index".name, '') AS index_name,
        coalesce("index".collection, '') AS collection,
        coalesce("index".embedder, '') AS embedder,
        coalesce("index".embedder_fingerprint, '') AS embedder_fingerprint,
        coalesce("index".parts, '') AS index_parts, run.query_set_id,
        query_set.name AS query_set, run.token_set_id, run.method, run.scorer,
        run.scorer_fingerprint, run.params, run.plan, run.priority, run.created_at, run.finished_at
    FROM run JOIN catalog ON catalog.id = run.catalog_id
        LEFT JOIN "index" ON "index".id = run.index_id
        LEFT JOIN query_set ON query_set.id = run.query_set_id
"""


def get_run(connection: Connection, run_id: int) -> RunRow:
    """One run.

    Raises:
        NotFoundError: Where there is none.
    """
    row = (
        connection.execute(text(f"{_SELECT} WHERE run.id = :run"), {"run": run_id})
        .mappings()
        .one_or_none()
    )
    if row is None:
        raise NotFoundError(f"there is no run {run_id}; `nightshift run list` shows them")
    return _run_row(row)


def list_runs(connection: Connection, limit: int = 50) -> list[RunRow]:
    """The newest runs first."""
    rows = connection.execute(
        text(f"{_SELECT} ORDER BY run.id DESC LIMIT :limit"), {"limit": limit}
    )
    return [_run_row(row) for row in rows.mappings()]


def active_runs(connection: Connection) -> list[RunRow]:
    """Runs in state `running`, the most urgent and oldest first."""
    rows = connection.execute(
        text(f"{_SELECT} WHERE run.state = 'running' ORDER BY run.priority, run.id")
    )
    return [_run_row(row) for row in rows.mappings()]


def unfinished_runs(connection: Connection) -> list[RunRow]:
    """Runs that are running or paused, the oldest first."""
    rows = connection.execute(
        text(f"{_SELECT} WHERE run.state IN ('running', 'paused') ORDER BY run.id")
    )
    return [_run_row(row) for row in rows.mappings()]


def refresh_statistics(connection: Connection, run_id: int, table: str) -> None:
    """Let the planner of Postgres see a partition that a stage has just filled."""
    assert table in PARTITIONED_TABLES
    connection.execute(text(f"ANALYZE {table}_r{run_id}"))


def lock_run(connection: Connection, run_id: int) -> RunRow | None:
    """A running run, locked; None where it is not running or another planner has it.

    Postgres ends the transaction of a planner that froze in it. Rows that refer to the run, such
    as failures, can be written meanwhile.
    """
    connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = '10s'"))
    locked = connection.execute(
        text(
            "SELECT id FROM run WHERE id = :run AND state = 'running' FOR NO KEY UPDATE SKIP LOCKED"
        ),
        {"run": run_id},
    ).scalar()
    return None if locked is None else get_run(connection, run_id)


def move_to_stage(
    connection: Connection, run_id: int, stage: Stage, plan: Mapping[str, Any]
) -> None:
    """Begin a stage, adding to what planning found."""
    connection.execute(
        text("UPDATE run SET stage = :stage, plan = plan || :plan WHERE id = :run"),
        {"run": run_id, "stage": stage.value, "plan": json.dumps(plan)},
    )


_ALLOWED = {
    RunState.PAUSED: (RunState.RUNNING,),
    RunState.RUNNING: (RunState.PAUSED,),
    RunState.CANCELLED: (RunState.RUNNING, RunState.PAUSED),
    RunState.DONE: (RunState.RUNNING,),
    RunState.FAILED: (RunState.RUNNING,),
}


def set_run_state(connection: Connection, run_id: int, state: RunState) -> None:
    """Move a run to a state that its present one allows.

    Raises:
        NotFoundError: Where there is no such run.
        ConflictError: Where the step is not allowed, such as pausing a finished run.
    """
    changed = connection.execute(
        text(
            """
            UPDATE run SET state = :state, finished_at = CASE
                WHEN :state IN ('done', 'failed', 'cancelled') THEN clock_timestamp() END
            WHERE id = :run AND state = ANY(:before)
            """
        ),
        {"run": run_id, "state": state.value, "before": [s.value for s in _ALLOWED[state]]},
    )
    if changed.rowcount != 1:
        present = get_run(connection, run_id).state
        raise ConflictError(f"run {run_id} is {present.value} and cannot become {state.value}")
    if state is RunState.RUNNING:
        # Doorbells of a paused run were answered with a shrug; let them ring anew.
        connection.execute(
            text("UPDATE job SET sent_at = NULL WHERE run_id = :run AND state = 'queued'"),
            {"run": run_id},
        )


def _run_row(row: RowMapping) -> RunRow:
    fields: dict[str, Any] = dict(row)
    fields["kind"] = RunKind(fields["kind"])
    fields["state"] = RunState(fields["state"])
    fields["stage"] = Stage(fields["stage"])
    return RunRow(**fields)
