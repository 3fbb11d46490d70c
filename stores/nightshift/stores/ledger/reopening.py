"""An ended run is taken up again: what failed leaves its old jobs, to be planned anew."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, text, update

from nightshift.schema.errors import ConflictError
from nightshift.schema.ledger_tables import Run
from nightshift.schema.messages import BlockPayload, ScorePayload
from nightshift.schema.plans import RerankControl
from nightshift.schema.states import RunState, Stage
from nightshift.stores.ledger import load_reports
from nightshift.stores.ledger.run_types import AnyRun, RerankRun
from nightshift.stores.ledger.runs import get_run

__all__ = [
    "clear_ranking",
    "clear_search",
    "forget_run_failure",
    "lock_ended",
    "reopen",
    "reset_waiting",
    "supersede_waiting",
    "take_failed_pairs",
    "take_failed_subjects",
]


def lock_ended(connection: Connection, run_id: int) -> AnyRun:
    """A run that is done or failed, locked against other planners.

    Raises:
        NotFoundError: Where there is none.
        ConflictError: Where it has not ended yet, or was cancelled.
    """
    connection.execute(text("SELECT FROM run WHERE id = :run FOR NO KEY UPDATE"), {"run": run_id})
    run = get_run(connection, run_id)
    if run.state is RunState.CANCELLED:
        raise ConflictError(f"run {run_id} was cancelled for good; plan another one")
    if run.state not in (RunState.DONE, RunState.FAILED):
        raise ConflictError(
            f"run {run_id} is {run.state.value}: what fails in it can be tried again when it has "
            f"ended (`nightshift run watch {run_id}`)"
        )
    return run


def take_failed_subjects(connection: Connection, run: AnyRun, stage: Stage) -> list[int]:
    """Take a stage's failed items or queries out of their jobs, and their failures back.

    Returns:
        Ids of those that still exist, sorted.
    """
    found = connection.execute(
        text(
            """
            WITH taken AS (
                DELETE FROM failure WHERE run_id = :run AND stage = :stage AND fatal
                    AND subject_kind IN ('item', 'query')
                RETURNING subject_kind, subject_id
            )
            SELECT i.id FROM taken t JOIN item i ON t.subject_kind = 'item'
                AND i.catalog_id = :catalog AND i.external_id = t.subject_id AND i.state = 'live'
            UNION ALL
            SELECT q.id FROM taken t JOIN query q ON t.subject_kind = 'query'
                AND q.query_set_id = :queries AND q.external_id = t.subject_id
            """
        ),
        {
            "run": run.id,
            "stage": stage.value,
            "catalog": run.catalog_id,
            "queries": run.query_set_id if isinstance(run, RerankRun) else None,
        },
    )
    failed = {int(row.id) for row in found}
    for job in _jobs_with_failures(connection, run.id, stage):
        ids = BlockPayload.model_validate(job.payload).ids
        kept = tuple(one for one in ids if one not in failed)
        _keep(connection, run.id, job, BlockPayload(ids=kept), len(kept))
    return sorted(failed)


def take_failed_pairs(connection: Connection, run: RerankRun) -> list[ScorePayload]:
    """Take the pairs without a score out of their score jobs, and their failures back.

    Returns:
        Payloads of jobs that carry these pairs alone, grouped as they were.
    """
    connection.execute(
        text(
            "DELETE FROM failure WHERE run_id = :run AND stage = 'score' AND fatal "
            "AND subject_kind = 'pair' AND reason NOT IN ('nothing_to_score', 'no_prompt')"
        ),
        {"run": run.id},
    )
    again = []
    for job in _jobs_with_failures(connection, run.id, Stage.SCORE):
        payload = ScorePayload.model_validate(job.payload)
        scored = _scored(connection, run.id, payload.pairs())
        kept = _only(payload, scored)
        _keep(connection, run.id, job, kept, len(kept.pairs()))
        rest = _only(payload, set(payload.pairs()) - scored)
        if rest.groups:
            again.append(rest)
    return again


def forget_run_failure(connection: Connection, run_id: int) -> None:
    """Take back why the run failed as a whole; what its jobs have noted stays."""
    connection.execute(
        text("DELETE FROM failure WHERE run_id = :run AND subject_kind = 'job' AND fatal"),
        {"run": run_id},
    )
    load_reports.forget_lost_loads_of(connection, run_id)


def reset_waiting(connection: Connection, run_id: int) -> int:
    """Give the queued jobs of a failed run all their attempts again, at once.

    Returns:
        How many units they hold.
    """
    units = connection.execute(
        text(
            """
            WITH reset AS (
                UPDATE job SET attempt = 0, not_before = '-infinity', sent_at = NULL,
                    outage_since = NULL
                WHERE run_id = :run AND state = 'queued' RETURNING n_units
            )
            SELECT coalesce(sum(n_units), 0) FROM reset
            """
        ),
        {"run": run_id},
    )
    return int(units.scalar_one())


def supersede_waiting(connection: Connection, run_id: int, stages: Sequence[Stage]) -> None:
    """Let jobs that are planned later carry the work of the queued jobs of these stages."""
    _supersede(connection, run_id, stages, "queued")


def clear_ranking(connection: Connection, run_id: int) -> None:
    """Take back what an earlier pass over the rank stage wrote; a first pass finds nothing."""
    _supersede(connection, run_id, [Stage.RANK], "queued", "done", "failed")
    for table in ("ranking", "calibration"):
        connection.execute(text(f"DELETE FROM {table} WHERE run_id = :run"), {"run": run_id})


def clear_search(connection: Connection, run_id: int) -> None:
    """Take back what a search stage found, so that it searches for every query again."""
    _supersede(connection, run_id, [Stage.SEARCH], "done", "failed")
    connection.execute(text("DELETE FROM candidate WHERE run_id = :run"), {"run": run_id})
    connection.execute(
        text(
            "DELETE FROM failure WHERE run_id = :run AND stage = 'search' "
            "AND reason = 'no_candidates'"
        ),
        {"run": run_id},
    )
    connection.execute(update(Run).where(Run.id == run_id).values(search_again=False))


def reopen(connection: Connection, run_id: int, stage: Stage) -> None:
    """Let an ended run go on at a stage."""
    connection.execute(
        update(Run)
        .where(Run.id == run_id)
        .values(
            state=RunState.RUNNING,
            stage=stage,
            finished_at=None,
            # Ties are counted anew.
            plan=Run.plan.op("-")("tied"),
            **RerankControl().model_dump(),
        )
    )


def _supersede(connection: Connection, run_id: int, stages: Sequence[Stage], *states: str) -> None:
    connection.execute(
        text(
            "UPDATE job SET state = 'split', n_failed = 0 "
            "WHERE run_id = :run AND stage = ANY(:stages) AND state = ANY(:states)"
        ),
        {"run": run_id, "stages": [stage.value for stage in stages], "states": list(states)},
    )


def _jobs_with_failures(connection: Connection, run_id: int, stage: Stage) -> Sequence[Row[Any]]:
    return connection.execute(
        text(
            "SELECT id, payload FROM job WHERE run_id = :run AND stage = :stage "
            "AND n_failed > 0 AND state IN ('done', 'failed') ORDER BY id"
        ),
        {"run": run_id, "stage": stage.value},
    ).all()


def _keep(
    connection: Connection,
    run_id: int,
    job: Row[Any],
    kept: BlockPayload | ScorePayload,
    n_units: int,
) -> None:
    """Leave a job what it has done; a job that did nothing is superseded."""
    connection.execute(
        text(
            "UPDATE job SET n_failed = 0, "
            "state = CASE WHEN :units = 0 THEN 'split' ELSE 'done' END, "
            "n_units = CASE WHEN :units = 0 THEN n_units ELSE :units END, "
            "payload = CASE WHEN :units = 0 THEN payload ELSE CAST(:payload AS jsonb) END "
            "WHERE run_id = :run AND id = :job"
        ),
        {"run": run_id, "job": job.id, "units": n_units, "payload": kept.model_dump_json()},
    )


def _scored(
    connection: Connection, run_id: int, pairs: list[tuple[int, int]]
) -> set[tuple[int, int]]:
    rows = connection.execute(
        text(
            """
            SELECT p.query_id, p.item_id FROM pair_score p
            JOIN unnest(CAST(:queries AS bigint[]), CAST(:items AS bigint[])) AS w(query, item)
                ON w.query = p.query_id AND w.item = p.item_id
            WHERE p.run_id = :run
            """
        ),
        {
            "run": run_id,
            "queries": [query for query, _ in pairs],
            "items": [item for _, item in pairs],
        },
    )
    return {(int(row.query_id), int(row.item_id)) for row in rows}


def _only(payload: ScorePayload, wanted: set[tuple[int, int]]) -> ScorePayload:
    by_query = payload.shared_side == "query"
    groups = (
        (
            shared,
            tuple(
                other
                for other in others
                if ((shared, other) if by_query else (other, shared)) in wanted
            ),
        )
        for shared, others in payload.groups
    )
    return payload.model_copy(
        update={"groups": tuple((shared, others) for shared, others in groups if others)}
    )
