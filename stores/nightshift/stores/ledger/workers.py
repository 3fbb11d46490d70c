"""Worker processes as they report themselves."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Interval, cast, delete, func, insert, select, text, update

from nightshift.schema.process_tables import Worker

__all__ = [
    "ALIVE_S",
    "WorkerRow",
    "count_alive",
    "list_workers",
    "register",
    "report",
    "retire",
]

#: A worker that has not reported for this long does not count as alive.
ALIVE_S = 15.0
_KEPT = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRow:
    """A worker as it last reported itself."""

    id: str
    host: str
    pid: int
    device: str
    stages: str
    #: The model it has loaded: as the operator named it, and its fingerprint.
    model: str | None
    model_fingerprint: str | None
    #: The job in hand.
    run_id: int | None
    job_id: int | None
    #: Over its last job.
    units_per_s: float | None
    up_s: float
    #: Seconds since it last reported.
    seen_s: float
    #: `alive`, `silent` (no report for `ALIVE_S`) or `stopped`.
    state: str


def register(
    connection: Connection, *, worker_id: str, host: str, pid: int, device: str, stages: str
) -> None:
    """Announce a worker that starts; forget those that ended a week ago."""
    connection.execute(delete(Worker).where(Worker.seen_at < func.now() - _KEPT))
    connection.execute(
        insert(Worker).values(id=worker_id, host=host, pid=pid, device=device, stages=stages)
    )


def report(connection: Connection, worker_id: str, facts: Mapping[str, Any]) -> None:
    """Note that a worker is alive, with its model and its job.

    Args:
        connection: A transaction.
        worker_id: The worker.
        facts: `device`, `model`, `loading` (the model's fingerprint), `run_id`, `job_id` and
            `units_per_s`; all but the device may be None.
    """
    connection.execute(_REPORT, {"id": worker_id, **facts})


def retire(connection: Connection, worker_id: str) -> None:
    """Note that a worker stopped in an orderly way."""
    connection.execute(
        update(Worker)
        .where(Worker.id == worker_id)
        .values(stopped_at=func.clock_timestamp(), run_id=None, job_id=None)
    )


def count_alive(connection: Connection) -> int:
    """Workers that reported lately and did not stop."""
    return int(connection.execute(_COUNT_ALIVE).scalar_one())


def list_workers(connection: Connection) -> list[WorkerRow]:
    """Workers of the last week, those alive first, then the latest seen."""
    rows = connection.execute(_LIST_WORKERS, {"alive": ALIVE_S})
    return [WorkerRow(**row) for row in rows.mappings()]


def count_neighbours(connection: Connection, host: str) -> int:
    """Workers alive on a machine."""
    of_host = _COUNT_ALIVE.where(Worker.host == host)
    return int(connection.execute(of_host).scalar_one())


# Counts the workers that did not stop and reported within `ALIVE_S`.
_COUNT_ALIVE = (
    select(func.count())
    .select_from(Worker)
    .where(
        Worker.stopped_at.is_(None),
        Worker.seen_at > func.clock_timestamp() - cast(timedelta(seconds=ALIVE_S), Interval),
    )
)

# Notes that a worker is alive, and its model and job; the load that it reports keeps its time.
_REPORT = text(
    """
    UPDATE worker SET seen_at = clock_timestamp(), device = :device,
        model = :model, run_id = :run_id, job_id = :job_id, loading = :loading,
        loading_since = CASE WHEN loading = :loading AND run_id = :run_id
            THEN loading_since WHEN :loading IS NOT NULL THEN clock_timestamp() END,
        units_per_s = coalesce(:units_per_s, units_per_s)
    WHERE id = :id
    """
)

# Lists the workers with their state, those alive first, then the latest seen.
_LIST_WORKERS = text(
    """
    SELECT w.id, w.host, w.pid, w.device, w.stages, m.spec AS model,
        w.model AS model_fingerprint, w.run_id, w.job_id, w.units_per_s,
        extract(epoch FROM w.seen_at - w.started_at)::double precision AS up_s,
        extract(epoch FROM clock_timestamp() - w.seen_at)::double precision AS seen_s,
        CASE WHEN w.stopped_at IS NOT NULL THEN 'stopped'
            WHEN w.seen_at > clock_timestamp() - make_interval(secs => :alive) THEN 'alive'
            ELSE 'silent' END AS state
    FROM worker w LEFT JOIN model m ON m.fingerprint = w.model
    ORDER BY state, w.seen_at DESC
    """
)
