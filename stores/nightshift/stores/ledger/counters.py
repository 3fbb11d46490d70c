"""Sums over the jobs of a run, kept as deltas that the dispatcher adds up in the background.

Two kinds are kept: counts of jobs by stage and state, and tallies, which jobs measure of their own
work. A delta is inserted and never updated, so that no commit of a worker waits for another's.
"""

from collections.abc import Mapping

from sqlalchemy import Connection, insert, text

from nightshift.schema.count_tables import TallyDelta
from nightshift.schema.states import TallyName

__all__ = [
    "compact_job_counts",
    "compact_tallies",
    "runs_with_running_jobs",
    "tallies_of_run",
    "write_tallies",
]

#: Deltas that one transaction adds up.
_MAX_DELTAS = 20_000


def compact_job_counts(connection: Connection) -> int:
    """Add deltas to the counts of jobs; those that another transaction is adding are left to it.

    Returns:
        Deltas added.
    """
    return int(connection.execute(_COMPACT_JOB_COUNTS, {"max_deltas": _MAX_DELTAS}).scalar_one())


def compact_tallies(connection: Connection) -> int:
    """Add deltas to the tallies; those that another transaction is adding are left to it.

    Returns:
        Deltas added.
    """
    return int(connection.execute(_COMPACT_TALLIES, {"max_deltas": _MAX_DELTAS}).scalar_one())


def runs_with_running_jobs(connection: Connection) -> list[int]:
    """Ids of the runs, in any state, that have jobs in the hands of workers."""
    return [int(row.run_id) for row in connection.execute(_RUNS_WITH_RUNNING_JOBS)]


def write_tallies(connection: Connection, run_id: int, amounts: Mapping[TallyName, float]) -> None:
    """Add what a job measured.

    Args:
        connection: The job's last transaction: what is written there is written once.
        run_id: The job's run.
        amounts: By name.
    """
    if amounts:
        rows = [
            {"run_id": run_id, "name": name, "amount": float(amount)}
            for name, amount in amounts.items()
        ]
        connection.execute(insert(TallyDelta), rows)


def tallies_of_run(connection: Connection, run_id: int) -> dict[TallyName, float]:
    """Sums over all jobs of a run that have ended; what no job measured is left out."""
    rows = connection.execute(_TALLIES_OF_RUN, {"run": run_id})
    return {TallyName(row.name): float(row.amount) for row in rows}


# Moves deltas of job counts into the counts; deltas of deleted runs are dropped.
_COMPACT_JOB_COUNTS = text(
    """
    WITH moved AS (
        DELETE FROM job_delta WHERE id = ANY(ARRAY(
            SELECT id FROM job_delta ORDER BY id LIMIT :max_deltas FOR UPDATE SKIP LOCKED))
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
)

# Moves deltas of tallies into the tallies; deltas of deleted runs are dropped.
_COMPACT_TALLIES = text(
    """
    WITH moved AS (
        DELETE FROM tally_delta WHERE id = ANY(ARRAY(
            SELECT id FROM tally_delta ORDER BY id LIMIT :max_deltas FOR UPDATE SKIP LOCKED))
        RETURNING run_id, name, amount
    ), summed AS (
        INSERT INTO tally AS t (run_id, name, amount)
        SELECT m.run_id, m.name, sum(m.amount)
        FROM moved m JOIN run ON run.id = m.run_id
        GROUP BY m.run_id, m.name
        ON CONFLICT (run_id, name) DO UPDATE SET amount = t.amount + excluded.amount
    )
    SELECT count(*) FROM moved
    """
)

# Finds runs by the counts of their running jobs, with the deltas that are not added yet.
_RUNS_WITH_RUNNING_JOBS = text(
    """
    SELECT run_id FROM (
        SELECT run_id, jobs FROM job_count WHERE state = 'running' AND jobs <> 0
        UNION ALL SELECT run_id, jobs FROM job_delta WHERE state = 'running'
    ) AS counted
    GROUP BY run_id HAVING sum(jobs) > 0 ORDER BY run_id
    """
)

# Reads the tallies of a run, with the deltas that are not added yet.
_TALLIES_OF_RUN = text("SELECT name, amount FROM v_tally WHERE run_id = :run")
