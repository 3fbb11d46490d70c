"""One dispatcher, many workers whose one-second jobs only sleep: how busy it keeps them.

Dispatcher, Redis, Postgres and workers are the real ones. The workers are forked off one process
that has imported what they need, so that 200 of them start in seconds and share that memory; each
is a worker as `nightshift worker` runs it, with connections and threads of its own.
"""

import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import monotonic, sleep

import click
import psutil
from sqlalchemy import text

from benchmarks.runs import add_index_run
from nightshift.cli.embedded_stack import open_stack
from nightshift.schema.settings import Settings
from nightshift.schema.states import RunState, Stage
from nightshift.stack import Stack
from nightshift.stores.ledger import runs
from nightshift.stores.ledger.claims import AnyClaim
from nightshift.stores.postgres.database import Database
from nightshift.workers.app import run_worker
from nightshift.workers.do_job import LoadedModel, do_job
from nightshift.workers.lease_renewal import Progress
from nightshift.workers.session import WorkerSession

_JOB_S = 1.0
_STEPS = 4
#: So long the workers may take to start.
_START_S = 90.0
#: Until the queues are full and everything is warm.
_WARM_UP_S = 8.0
#: A resource that is used beyond this share bounds what it serves.
_FULL = 0.85
_LITTLE_MEMORY = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The figures of one measurement."""

    workers: int
    #: Those that had begun a job a minute and a half after they were started.
    workers_at_work: int
    jobs_per_s: float
    #: Share of the workers' time in which they hold a job.
    busy_share: float
    #: Longest time of a worker between two jobs.
    longest_gap_s: float
    #: Most connections of workers, and of everybody, at once.
    worker_connections: int
    connections: int
    #: Resident memory of a worker, and its share of it where pages are counted once.
    worker_rss_mb: float
    worker_pss_mb: float
    #: Of one core, by part; `others` is whatever else this machine does.
    cores: dict[str, float]
    cores_of_machine: int
    #: What keeps the workers from being 95 % busy; None where nothing does.
    bound_by: str | None


@click.command()
@click.option("--workers", default=200, show_default=True)
@click.option("--seconds", default=30.0, show_default=True, help="Of measurement.")
@click.option("--json", "as_json", is_flag=True)
def main(workers: int, seconds: float, as_json: bool) -> None:
    """Measure how busy one dispatcher keeps WORKERS workers with jobs of one second."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the services are to stop, too
    with tempfile.TemporaryDirectory(prefix="ns-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # Postgres may run as another user
        stack = open_stack(Path(folder))
        try:
            stack.up(0)
            facts = asdict(_measure(stack, workers, seconds))
        finally:
            stack.down()
    print(json.dumps(facts) if as_json else "\n".join(f"{k:20} {v}" for k, v in facts.items()))


def _measure(stack: Stack, n_workers: int, seconds: float) -> Fleet:
    n_jobs = round(n_workers * (seconds + 60) / _JOB_S)
    with Database(stack.urls().database_url, application="benchmark") as database:
        run_id = add_index_run(database, n_jobs, n_queued=n_jobs)
        with _workers(stack, n_workers) as parent:
            n_at_work = _wait_until_at_work(database, run_id, n_workers)
            sleep(_WARM_UP_S)
            since = _now(database)
            before, began = _cpu_seconds(stack, parent), monotonic()
            max_of_all, max_of_workers = _watch_connections(database, seconds)
            after = _cpu_seconds(stack, parent)
            took = monotonic() - began
            cores = {part: round((after[part] - before[part]) / took, 2) for part in after}
            until = _now(database)
            rss, pss = _memory_mb(parent)
            free = psutil.virtual_memory().available / psutil.virtual_memory().total
            spans = _spans(database, run_id)
        with database.begin() as connection:
            runs.set_run_state(connection, run_id, RunState.CANCELLED)
    busy, gap, n_done = _busy(spans, since, until, n_workers)
    return Fleet(
        workers=n_workers,
        workers_at_work=n_at_work,
        jobs_per_s=round(n_done / (until - since), 1),
        busy_share=round(busy, 4),
        longest_gap_s=round(gap, 3),
        worker_connections=max_of_workers,
        connections=max_of_all,
        worker_rss_mb=rss,
        worker_pss_mb=pss,
        cores=cores,
        cores_of_machine=len(os.sched_getaffinity(0)),
        bound_by=None if busy >= 0.95 else _bound_by(cores, free),
    )


def _bound_by(cores: dict[str, float], free_memory: float) -> str:
    """Name the resource that is used up, from what was measured."""
    if free_memory < _LITTLE_MEMORY:
        return f"memory: {free_memory:.0%} of it is free"
    n_cores = len(os.sched_getaffinity(0))
    if (used := sum(cores.values())) > _FULL * n_cores:
        shares = ", ".join(f"{part} {share:.2f}" for part, share in cores.items())
        first = max(cores, key=lambda part: cores[part])
        return f"CPU: {used:.2f} of {n_cores} cores are used, most of it by {first} ({shares})"
    if cores["dispatcher"] > _FULL:
        return f"CPU of the dispatcher: {cores['dispatcher']:.2f} of its one core"
    if cores["redis"] > _FULL:
        return f"CPU of Redis: {cores['redis']:.2f} of its one core"
    return "waiting: no core and no memory is used up"


def _wait_until_at_work(database: Database, run_id: int, n_workers: int) -> int:
    """Wait until each worker has begun a job, for a while; returns how many have."""
    end = monotonic() + _START_S
    while (n_at_work := _workers_at_work(database, run_id)) < n_workers and monotonic() < end:
        sleep(0.5)
    return n_at_work


def _workers_at_work(database: Database, run_id: int) -> int:
    with database.begin() as connection:
        return int(
            connection.execute(
                text("SELECT count(DISTINCT worker_id) FROM job WHERE run_id = :run"),
                {"run": run_id},
            ).scalar_one()
        )


def _watch_connections(database: Database, seconds: float) -> tuple[int, int]:
    """The most connections at once, of everybody but this benchmark and of workers."""
    max_of_all = max_of_workers = 0
    end = monotonic() + seconds
    while monotonic() < end:
        with database.begin() as connection:
            row = connection.execute(
                text(
                    "SELECT count(*) AS of_all, count(*) FILTER (WHERE application_name = "
                    "'nightshift worker') AS of_workers FROM pg_stat_activity "
                    "WHERE backend_type = 'client backend' AND application_name <> 'benchmark'"
                )
            ).one()
        max_of_all, max_of_workers = (
            max(max_of_all, row.of_all),
            max(max_of_workers, row.of_workers),
        )
        sleep(0.25)
    return max_of_all, max_of_workers


def _spans(database: Database, run_id: int) -> list[tuple[str, float, float]]:
    """Worker, begin and end of each job that was begun; the end of a running one is now."""
    with database.begin() as connection:
        rows = connection.execute(
            text(
                """
                SELECT worker_id, extract(epoch FROM started_at) AS began, extract(epoch FROM
                    coalesce(finished_at, clock_timestamp())) AS ended
                FROM job WHERE run_id = :run AND worker_id IS NOT NULL
                ORDER BY worker_id, started_at
                """
            ),
            {"run": run_id},
        )
        return [(row.worker_id, float(row.began), float(row.ended)) for row in rows]


def _busy(
    spans: Sequence[tuple[str, float, float]], since: float, until: float, n_workers: int
) -> tuple[float, float, int]:
    """Share of the workers' time in jobs, longest gap between two jobs, and jobs that ended."""
    in_jobs, longest, n_done = 0.0, 0.0, 0
    last: tuple[str, float] | None = None
    for worker, began, ended in spans:
        in_jobs += max(0.0, min(ended, until) - max(began, since))
        n_done += since < ended <= until
        if last is not None and last[0] == worker and since < began <= until:
            longest = max(longest, began - last[1])
        last = worker, ended
    return in_jobs / ((until - since) * n_workers), longest, n_done


def _now(database: Database) -> float:
    with database.begin() as connection:
        return float(
            connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one()
        )


def _cpu_seconds(stack: Stack, parent: int) -> dict[str, float]:
    """CPU seconds so far, by part; of Postgres with all backends that have ended."""
    pids = {part.name: part.pid for part in stack.status().parts if part.pid}
    seconds = {
        "workers": sum(_own(child) for child in psutil.Process(parent).children()),
        "dispatcher": _with_children(pids["dispatcher"]),
        "postgres": _with_children(pids["postgres"]),
        "redis": _with_children(pids["redis"]),
    }
    machine = psutil.cpu_times()
    busy = sum(machine) - machine.idle - machine.iowait - machine.guest - machine.guest_nice
    return seconds | {"others": busy - sum(seconds.values())}


def _with_children(pid: int) -> float:
    process = psutil.Process(pid)
    times = process.cpu_times()
    ended = times.children_user + times.children_system
    return _own(process) + ended + sum(_own(child) for child in process.children(recursive=True))


def _own(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def _memory_mb(parent: int) -> tuple[float, float]:
    memory = [child.memory_full_info() for child in psutil.Process(parent).children()]
    n_bytes = len(memory) * 2**20
    return (
        round(sum(process.rss for process in memory) / n_bytes, 1),
        round(sum(process.pss for process in memory) / n_bytes, 1),
    )


@contextmanager
def _workers(stack: Stack, count: int) -> Iterator[int]:
    environment = os.environ | {
        "NIGHTSHIFT_DATA_DIR": str(stack.data_dir),
        "OMP_NUM_THREADS": "1",
        "NIGHTSHIFT_LOG_LEVEL": "WARNING",
    }
    command = [sys.executable, "-m", "benchmarks.fleet", "workers", str(count)]
    parent = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        yield parent.pid
    finally:
        parent.terminate()
        parent.wait()


def _fork_workers(count: int) -> None:
    """Fork the workers, and end them when this process is asked to end."""
    children: list[int] = []

    def end(*_: object) -> None:
        for child in children:
            os.kill(child, signal.SIGKILL)
        os._exit(0)

    gc.freeze()  # or its marks would copy the pages that the workers share
    for _ in range(count):
        if (child := os.fork()) == 0:
            os._exit(_work())
        children.append(child)
    signal.signal(signal.SIGTERM, end)
    while True:
        signal.pause()


def _work() -> int:
    """A worker whose embed jobs sleep, in steps as a model takes them."""

    def sleep_in_steps(
        session: WorkerSession, claim: AnyClaim, progress: Progress, _model: object
    ) -> None:
        for _ in range(_STEPS):
            sleep(_JOB_S / _STEPS)
            progress.step()
        with session.ledger.finish(claim):
            pass

    job_function = partial(
        do_job,
        stage_functions={Stage.EMBED: sleep_in_steps},
        load_model=lambda _, run: LoadedModel(stage=run.stage),
    )
    return run_worker(
        Settings(), stages=frozenset({Stage.EMBED}), device="cpu", job_function=job_function
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["workers"]:
        _fork_workers(int(sys.argv[2]))
    main()
