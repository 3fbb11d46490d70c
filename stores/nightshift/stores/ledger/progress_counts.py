"""Counts of jobs: the deltas that statements leave are summed here, in the background."""

from sqlalchemy import Connection, text

__all__ = ["compact", "runs_with_running_jobs"]

_AT_ONCE = 20_000


def compact(connection: Connection) -> int:
    """Move deltas into the counts; deltas that another transaction is moving are left to it.

    Returns:
        How many were moved.
    """
    moved = connection.execute(
        text(
            """
            WITH moved AS (
                DELETE FROM job_delta WHERE id = ANY(ARRAY(
                    SELECT id FROM job_delta ORDER BY id LIMIT :most FOR UPDATE SKIP LOCKED))
                RETURNING run_id, stage, state, jobs, units, units_failed
            ), summed AS (
                INSERT INTO job_count AS c (run_id, stage, state, jobs, units, units_failed)
                SELECT m.run_id, m.stage, m.state, sum(m.jobs), sum(m.units), sum(m.units_failed)
                FROM moved m JOIN run ON run.id = m.run_id
                GROUP BY m.run_id, m.stage, m.state
                ON CONFLICT (run_id, stage, state) DO UPDATE SET jobs = c.jobs + excluded.jobs,
                    units = c.units + excluded.units,
                    units_failed = c.units_failed + excluded.units_failed
            )
            SELECT count(*) FROM moved
            """
        ),
        {"most": _AT_ONCE},
    )
    return int(moved.scalar_one())


def runs_with_running_jobs(connection: Connection) -> list[int]:
    """Ids of the runs, in whatever state, that have jobs in the hands of workers."""
    rows = connection.execute(
        text(
            """
            SELECT run_id FROM (
                SELECT run_id, jobs FROM job_count WHERE state = 'running' AND jobs <> 0
                UNION ALL SELECT run_id, jobs FROM job_delta WHERE state = 'running'
            ) AS counted
            GROUP BY run_id HAVING sum(jobs) > 0 ORDER BY run_id
            """
        )
    )
    return [int(row.run_id) for row in rows]
