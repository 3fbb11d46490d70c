"""Which jobs should have a doorbell in Redis, and which have one."""

from dataclasses import dataclass

from sqlalchemy import Connection, text

__all__ = ["WaitingJob", "has_work", "jobs_to_ring", "mark_rung"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingJob:
    """A queued job whose doorbell should ring."""

    run_id: int
    job_id: int


def jobs_to_ring(
    connection: Connection, run_id: int, *, limit: int, ring_again: bool
) -> list[WaitingJob]:
    """The run's next queued jobs that have no doorbell in Redis.

    Args:
        connection: A transaction.
        run_id: A running run.
        limit: At most so many.
        ring_again: Redis holds no doorbell of this queue, so rings older than 2 s were lost.
    """
    rows = connection.execute(
        text(
            """
            SELECT id FROM job
            WHERE run_id = :run AND state = 'queued' AND not_before <= clock_timestamp()
                AND (sent_at IS NULL
                     OR (:again AND sent_at < clock_timestamp() - interval '2 s'))
            ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED
            """
        ),
        {"run": run_id, "limit": limit, "again": ring_again},
    )
    return [WaitingJob(run_id=run_id, job_id=int(row.id)) for row in rows]


def mark_rung(connection: Connection, jobs: list[WaitingJob]) -> None:
    """Note when their doorbells were rung."""
    for job in jobs:
        connection.execute(
            text(
                "UPDATE job SET sent_at = clock_timestamp() "
                "WHERE run_id = :run AND id = :job AND state = 'queued'"
            ),
            {"run": job.run_id, "job": job.job_id},
        )


def has_work(connection: Connection, run_id: int) -> bool:
    """Whether a run has a job to do right now."""
    found = connection.execute(
        text(
            "SELECT 1 FROM job WHERE run_id = :run AND state = 'queued' "
            "AND not_before <= clock_timestamp() LIMIT 1"
        ),
        {"run": run_id},
    )
    return found.scalar() is not None
