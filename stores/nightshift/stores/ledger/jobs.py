"""The queued jobs of a run: planned, counted, and rung for by doorbells."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, func, or_, select, text, update

from nightshift.schema.ledger_tables import Job
from nightshift.schema.messages import Payload, queue_name
from nightshift.schema.states import JobState, Stage
from nightshift.stores.postgres.database import copy_rows

__all__ = [
    "WaitingJob",
    "add_jobs",
    "has_unfinished_jobs",
    "has_work",
    "jobs_to_ring",
    "mark_rung",
    "stage_rate",
]


_RING_AGAIN_AFTER = timedelta(seconds=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingJob:
    """A queued job whose doorbell should ring."""

    run_id: int
    job_id: int


def add_jobs(
    connection: Connection, run_id: int, stage: Stage, queue: str, payloads: Iterable[Payload]
) -> int:
    """COPY queued jobs into the ledger, one for each payload, numbered on from the run's last.

    Returns:
        Jobs added.
    """
    last_id = connection.execute(
        select(func.coalesce(func.max(Job.id), 0)).where(Job.run_id == run_id)
    ).scalar_one()
    # Other columns have defaults.
    columns = (Job.run_id, Job.id, Job.stage, Job.queue, Job.payload, Job.n_units, Job.not_before)
    return copy_rows(
        connection,
        Job.__tablename__,
        [column.key for column in columns],
        (
            (run_id, job_id, stage.value, queue, payload.model_dump_json(), payload.n_units,
             "-infinity")
            for job_id, payload in enumerate(payloads, last_id + 1)
        ),
    )  # fmt: skip


def has_unfinished_jobs(connection: Connection, run_id: int, stage: Stage) -> bool:
    """Return whether a job of a stage is still queued or running."""
    unfinished = select(Job.id).where(
        Job.run_id == run_id,
        Job.stage == stage,
        Job.state.in_([JobState.QUEUED, JobState.RUNNING]),
    )
    return connection.execute(unfinished.limit(1)).scalar() is not None


def has_work(connection: Connection, run_id: int) -> bool:
    """Return whether a run has a job to do right now."""
    due = select(Job.id).where(
        Job.run_id == run_id,
        Job.state == JobState.QUEUED,
        Job.not_before <= func.clock_timestamp(),
    )
    return connection.execute(due.limit(1)).scalar() is not None


def jobs_to_ring(
    connection: Connection, run_id: int, stage: Stage, *, limit: int, ring_again: bool
) -> list[WaitingJob]:
    """The run's next queued jobs that have no doorbell in Redis.

    Args:
        connection: A transaction.
        run_id: A running run.
        stage: The one in hand; jobs of the next one may be planned already, but not all of them.
        limit: At most so many.
        ring_again: Redis holds no doorbell of this queue, so rings older than 2 s were lost.
    """
    never_rung = Job.sent_at.is_(None)
    lost = Job.sent_at < func.clock_timestamp() - _RING_AGAIN_AFTER
    due = (
        select(Job.id)
        .where(
            Job.run_id == run_id,
            Job.stage == stage,
            Job.state == JobState.QUEUED,
            Job.not_before <= func.clock_timestamp(),
            or_(never_rung, lost) if ring_again else never_rung,
        )
        .order_by(Job.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [WaitingJob(run_id=run_id, job_id=int(row.id)) for row in connection.execute(due)]


def mark_rung(connection: Connection, jobs: Iterable[WaitingJob]) -> None:
    """Note when their doorbells were rung."""
    for job in jobs:
        connection.execute(
            update(Job)
            .where(Job.run_id == job.run_id, Job.id == job.job_id, Job.state == JobState.QUEUED)
            .values(sent_at=func.clock_timestamp())
        )


def stage_rate(connection: Connection, stage: Stage, model_fingerprint: str | None) -> float | None:
    """Units a second of one worker, in the last three runs that did this with this model.

    None where none of the last ten runs with the model had such work.
    """
    last_runs = connection.execute(_LAST_RUNS_OF_MODEL, {"model": model_fingerprint})
    rate = connection.execute(
        _RATE_OF_RUNS,
        {
            "runs": [row.id for row in last_runs],
            "stage": stage.value,
            "queue": queue_name(stage, model_fingerprint),
        },
    ).scalar()
    return None if rate is None else float(rate)


# Finds the last ten runs that need a model, or the last ten of all where none is named.
_LAST_RUNS_OF_MODEL = text(
    """
    SELECT run.id FROM run LEFT JOIN "index" ON "index".id = run.index_id
    WHERE CAST(:model AS text) IS NULL
        OR :model IN (run.scorer_fingerprint, "index".embedder_fingerprint)
    ORDER BY run.id DESC LIMIT 10
    """
)

# Divides units by seconds over the done jobs of the last three of some runs that had such work.
# With the runs named, Postgres plans over their partitions and over no others.
_RATE_OF_RUNS = text(
    """
    SELECT sum(units) / nullif(sum(seconds), 0) FROM (
        SELECT sum(n_units) AS units,
            sum(extract(epoch FROM finished_at - started_at)) AS seconds
        FROM job WHERE run_id = ANY(:runs) AND stage = :stage AND queue = :queue
            AND state = 'done' AND n_units > n_failed
        GROUP BY run_id ORDER BY run_id DESC LIMIT 3
    ) AS of_run
    """
)
