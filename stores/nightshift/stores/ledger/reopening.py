"""Take up an ended run: what failed leaves its old jobs, to be planned once more."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, select, text, update

from nightshift.schema.errors import ConflictError
from nightshift.schema.ledger_tables import Failure, Job, Run
from nightshift.schema.messages import BlockPayload, Payload, ScorePayload
from nightshift.schema.plans import RerankControl
from nightshift.schema.result_tables import Calibration, Candidate, Ranking
from nightshift.schema.states import JobState, RunState, Stage, SubjectKind
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
    connection.execute(select(Run.id).where(Run.id == run_id).with_for_update(key_share=True))
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
    rows = connection.execute(
        _TAKE_FAILURES,
        {
            "run": run.id,
            "stage": stage.value,
            "catalog": run.catalog_id,
            "queries": run.query_set_id if isinstance(run, RerankRun) else None,
        },
    )
    failed = {int(row.id) for row in rows}
    for job in _jobs_with_failures(connection, run.id, stage):
        block = BlockPayload.model_validate(job.payload)
        kept_ids = tuple(unit_id for unit_id in block.ids if unit_id not in failed)
        _keep(connection, run.id, job.id, BlockPayload(ids=kept_ids))
    return sorted(failed)


def take_failed_pairs(connection: Connection, run: RerankRun) -> list[ScorePayload]:
    """Take the pairs without a score out of their score jobs, and their failures back.

    Returns:
        Payloads of jobs that carry these pairs alone, grouped as they were.
    """
    connection.execute(
        delete(Failure).where(
            Failure.run_id == run.id,
            Failure.stage == Stage.SCORE.value,
            Failure.fatal,
            Failure.subject_kind == SubjectKind.PAIR,
            Failure.reason.not_in(["nothing_to_score", "no_prompt"]),
        )
    )
    payloads = []
    for job in _jobs_with_failures(connection, run.id, Stage.SCORE):
        payload = ScorePayload.model_validate(job.payload)
        scored = _scored(connection, run.id, payload.pairs())
        kept = _only(payload, scored)
        _keep(connection, run.id, job.id, kept)
        rest = _only(payload, set(payload.pairs()) - scored)
        if rest.groups:
            payloads.append(rest)
    return payloads


def forget_run_failure(connection: Connection, run_id: int) -> None:
    """Delete the reason why the run failed as a whole; failures of its units stay."""
    connection.execute(
        delete(Failure).where(
            Failure.run_id == run_id, Failure.subject_kind == SubjectKind.JOB, Failure.fatal
        )
    )
    load_reports.forget_lost_loads_of(connection, run_id)


def reset_waiting(connection: Connection, run_id: int) -> int:
    """Give the queued jobs of a failed run all their attempts again, at once.

    Returns:
        How many units they hold.
    """
    return int(connection.execute(_RESET_WAITING, {"run": run_id}).scalar_one())


def supersede_waiting(connection: Connection, run_id: int, stages: Sequence[Stage]) -> None:
    """Mark the queued jobs of these stages as superseded by jobs that are planned later."""
    _supersede(connection, run_id, stages, JobState.QUEUED)


def clear_ranking(connection: Connection, run_id: int) -> None:
    """Delete the rankings of an earlier pass over the rank stage; a first pass has none."""
    _supersede(connection, run_id, [Stage.RANK], JobState.QUEUED, JobState.DONE, JobState.FAILED)
    connection.execute(delete(Ranking).where(Ranking.run_id == run_id))
    connection.execute(delete(Calibration).where(Calibration.run_id == run_id))


def clear_search(connection: Connection, run_id: int) -> None:
    """Delete the candidates of a search stage, so that it searches for every query again."""
    _supersede(connection, run_id, [Stage.SEARCH], JobState.DONE, JobState.FAILED)
    connection.execute(delete(Candidate).where(Candidate.run_id == run_id))
    connection.execute(
        delete(Failure).where(
            Failure.run_id == run_id,
            Failure.stage == Stage.SEARCH.value,
            Failure.reason == "no_candidates",
        )
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
            # Ties are counted once more.
            plan=Run.plan.op("-")("tied"),
            **RerankControl().model_dump(),
        )
    )


def _supersede(
    connection: Connection, run_id: int, stages: Sequence[Stage], *states: JobState
) -> None:
    connection.execute(
        update(Job)
        .where(Job.run_id == run_id, Job.stage.in_(stages), Job.state.in_(states))
        .values(state=JobState.SPLIT, n_failed=0)
    )


def _jobs_with_failures(connection: Connection, run_id: int, stage: Stage) -> Sequence[Row[Any]]:
    return connection.execute(
        select(Job.id, Job.payload)
        .where(
            Job.run_id == run_id,
            Job.stage == stage,
            Job.n_failed > 0,
            Job.state.in_([JobState.DONE, JobState.FAILED]),
        )
        .order_by(Job.id)
    ).all()


def _keep(connection: Connection, run_id: int, job_id: int, kept: Payload) -> None:
    """Leave a job the units that it has done; a job that did none is superseded."""
    values: dict[str, Any] = {"n_failed": 0, "state": JobState.SPLIT}
    if kept.n_units:
        values |= {
            "state": JobState.DONE,
            "n_units": kept.n_units,
            "payload": kept.model_dump(mode="json"),
        }
    connection.execute(update(Job).where(Job.run_id == run_id, Job.id == job_id).values(**values))


def _scored(
    connection: Connection, run_id: int, pairs: list[tuple[int, int]]
) -> set[tuple[int, int]]:
    rows = connection.execute(
        _SCORED_PAIRS,
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


# Deletes the failures of a stage and reads the ids of their items or queries that still exist.
_TAKE_FAILURES = text(
    """
    WITH taken AS (
        DELETE FROM failure WHERE run_id = :run AND stage = :stage AND fatal
            AND subject_kind IN ('item', 'query')
        RETURNING subject_kind, subject_id
    )
    SELECT i.id FROM taken t JOIN item i ON t.subject_kind = 'item'
        AND i.catalog_id = :catalog AND i.external_id = t.subject_id
    UNION ALL
    SELECT q.id FROM taken t JOIN query q ON t.subject_kind = 'query'
        AND q.query_set_id = :queries AND q.external_id = t.subject_id
    """
)

# Gives the queued jobs of a run all their attempts again, and counts their units.
_RESET_WAITING = text(
    """
    WITH reset AS (
        UPDATE job SET attempt = 0, not_before = '-infinity', sent_at = NULL,
            outage_since = NULL
        WHERE run_id = :run AND state = 'queued' RETURNING n_units
    )
    SELECT coalesce(sum(n_units), 0) FROM reset
    """
)

# Finds which of some pairs of a run have a score.
_SCORED_PAIRS = text(
    """
    SELECT c.query_id, c.item_id FROM candidate c
    JOIN unnest(CAST(:queries AS bigint[]), CAST(:items AS bigint[])) AS w(query, item)
        ON w.query = c.query_id AND w.item = c.item_id
    WHERE c.run_id = :run AND c.score_id IS NOT NULL
    """
)
