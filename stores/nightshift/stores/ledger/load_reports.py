"""Loads of models that their workers did not survive.

A worker reports a load before it begins. The report of a worker that is lost during the load stays:
the attempt counts against its run, until another worker loads that model.
"""

from collections.abc import Iterable
from datetime import timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, text, update

from nightshift.schema.process_tables import Worker
from nightshift.schema.states import Stage
from nightshift.stores.ledger import runs
from nightshift.stores.ledger.workers import ALIVE_S

__all__ = [
    "fail_runs_that_end_workers",
    "forget_lost_loads",
    "forget_lost_loads_of",
    "load_in_doubt",
]


def fail_runs_that_end_workers(connection: Connection, *, max_attempts: int) -> list[int]:
    """Fail running runs whose model has ended so many workers in a row, with the reason.

    Workers that were lost at the same time, as by a power cut, count as one.

    Returns:
        Ids of the runs.
    """
    lost = connection.execute(_LOST_LOADS, {"alive": ALIVE_S}).all()
    failed = []
    for (run_id, _), of_model in groupby(lost, lambda row: (row.run_id, row.loading)):
        loads = list(of_model)
        if run_id not in failed and _in_a_row(loads) >= max_attempts:
            last = loads[-1]
            message = _MESSAGE.format(n=len(loads), last=last, run=run_id)
            runs.fail_run(connection, run_id, Stage(last.stage), "worker_lost", message)
            failed.append(run_id)
    return failed


def load_in_doubt(connection: Connection, run_id: int, fingerprint: str) -> str | None:
    """A worker that misses its reports while it loads this model for this run, and may be lost.

    Other workers wait until it is known to be lost or alive; else many would be lost before the
    first is counted.
    """
    worker_id = connection.execute(
        _LATE_LOAD,
        {"run": run_id, "fingerprint": fingerprint, "alive": ALIVE_S, "late": _LATE_S},
    ).scalar()
    return None if worker_id is None else str(worker_id)


def forget_lost_loads(connection: Connection, fingerprint: str) -> None:
    """A model has been loaded: it is not what ends workers."""
    _forget(connection, Worker.loading == fingerprint)


def forget_lost_loads_of(connection: Connection, run_id: int) -> None:
    """A run is taken up again: all attempts count from the beginning."""
    _forget(connection, Worker.run_id == run_id)


#: A worker reports every 3 s.
_LATE_S = 4.0

_MESSAGE = (
    "{n} workers, one after another, stopped responding while they loaded {last.spec} "
    "({last.loading}) for this run, the last of them {last.worker_id}, as a process does that "
    "crashes or is killed for want of memory: see its log, and the kernel's. Give the workers more "
    "memory and run `nightshift run retry-failed {run}`, or plan another run with a smaller model "
    "or precision"
)


def _in_a_row(loads: Iterable[Row[Any]]) -> int:
    """Count the loads that each began after the one before had ended."""
    n, ended = 0, None
    for load in loads:
        if ended is None or load.loading_since > ended:
            n, ended = n + 1, load.seen_at
    return n


def _forget(connection: Connection, condition: ColumnElement[bool]) -> None:
    silent_since = func.clock_timestamp() - timedelta(seconds=ALIVE_S)
    connection.execute(
        update(Worker)
        .where(condition, Worker.stopped_at.is_(None), Worker.seen_at < silent_since)
        .values(loading=None)
    )


# Lists the loads whose worker was lost, by run and model in the order in which they began, and
# locks their runs.
_LOST_LOADS = text(
    """
    SELECT run.id AS run_id, run.stage, w.id AS worker_id, w.loading, w.loading_since,
        w.seen_at, m.spec
    FROM worker w JOIN run ON run.id = w.run_id AND run.state = 'running'
        LEFT JOIN model m ON m.fingerprint = w.loading
    WHERE w.loading IS NOT NULL AND w.stopped_at IS NULL
        AND w.seen_at < clock_timestamp() - make_interval(secs => :alive)
    ORDER BY run.id, w.loading, w.loading_since FOR NO KEY UPDATE OF run SKIP LOCKED
    """
)

# Finds a worker that loads a model for a run and misses its reports, but is not lost yet.
_LATE_LOAD = text(
    """
    SELECT id FROM worker WHERE loading = :fingerprint AND run_id = :run
        AND stopped_at IS NULL
        AND seen_at > clock_timestamp() - make_interval(secs => :alive)
        AND seen_at < clock_timestamp() - make_interval(secs => :late)
    ORDER BY seen_at LIMIT 1
    """
)
