"""The progress of a run: jobs and units of each stage, and recent throughput."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from nightshift.schema.states import Stage

__all__ = [
    "StageCounts",
    "stage_counts",
]

#: Recent throughput is over this long, and over so many jobs at most.
_RECENT_S = 60.0
_RECENT_JOBS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCounts:
    """Jobs and units (items, queries or pairs) of one stage of a run."""

    stage: Stage
    queued: int
    running: int
    done: int
    failed: int
    units: int
    #: Units of done jobs; those of them without a result are in `units_failed` too.
    units_done: int
    units_failed: int
    #: Units of jobs that are queued or running.
    units_left: int
    #: Units of the last jobs done within the last minute of the stage's life.
    units_recent: int
    #: Seconds over which `units_recent` were done; None before the first claim, as the next three.
    recent_s: float | None
    elapsed_s: float | None
    started_at: datetime | None
    #: None while a job is queued or running.
    finished_at: datetime | None


def stage_counts(connection: Connection, run_id: int) -> list[StageCounts]:
    """The stages of a run that have begun.

    Reads counters and a bounded number of index entries. The two times of `v_run_progress` are
    not used: for them Postgres plans over the jobs of every run there ever was.
    """
    # Without statistics of a new partition the planner would rather sort it than follow its index.
    connection.execute(_SORT_OFF)
    rows = connection.execute(
        _STAGE_COUNTS, {"run": run_id, "recent": _RECENT_S, "max_jobs": _RECENT_JOBS}
    )
    counts = [StageCounts(**{**row, "stage": Stage(row["stage"])}) for row in rows.mappings()]
    return sorted(counts, key=lambda of_stage: list(Stage).index(of_stage.stage))


# Keeps the planner from sorting, for this transaction.
_SORT_OFF = text("SET LOCAL enable_sort = off")

# Reads the counters of each stage, when it began and ended, and the units of its last jobs.
_STAGE_COUNTS = text(
    """
    SELECT p.stage, p.queued, p.running, p.done, p.failed, p.units, p.units_done,
        p.units_failed, p.units_left, first.started_at, life.ended_at AS finished_at,
        extract(epoch FROM now.at - first.started_at)::double precision AS elapsed_s,
        recent.units AS units_recent,
        extract(epoch FROM now.at - recent.since)::double precision AS recent_s
    FROM v_run_progress p
    LEFT JOIN LATERAL (
        SELECT started_at FROM job
        WHERE run_id = :run AND stage = p.stage AND started_at IS NOT NULL
        ORDER BY started_at LIMIT 1
    ) AS first ON true
    LEFT JOIN LATERAL (
        SELECT finished_at AS ended_at FROM job
        WHERE p.queued + p.running = 0
            AND run_id = :run AND stage = p.stage AND finished_at IS NOT NULL
        ORDER BY finished_at DESC LIMIT 1
    ) AS life ON true
    CROSS JOIN LATERAL (
        SELECT at, greatest(first.started_at, at - make_interval(secs => :recent))
            AS recently
        FROM coalesce(life.ended_at, clock_timestamp()) AS at
    ) AS now
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(n_units) FILTER (WHERE state = 'done'), 0)::bigint AS units,
            CASE WHEN count(*) < :max_jobs THEN now.recently ELSE min(finished_at) END AS since
        FROM (
            SELECT n_units, state, finished_at FROM job
            WHERE run_id = :run AND stage = p.stage AND finished_at >= now.recently
            ORDER BY finished_at DESC LIMIT :max_jobs
        ) AS last
    ) AS recent
    WHERE p.run_id = :run
    """
)
