"""Cost of queue and ledger for one-second jobs, and the time to refill Redis after a flush.

The parts are the real ones: dispatcher, Redis, Postgres, and worker processes that differ from
`nightshift worker` only in that an embed job sleeps for as long as its setting says.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import monotonic, sleep

import click
import redis
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

_WORKERS = 3
_JOB_S = "NIGHTSHIFT_BENCHMARK_JOB_S"
_STEPS = 10
#: More jobs than are measured: the run must not advance to its next stage.
_SPARE = 50
_SHORT_JOB_S = 0.2
#: Throughput is counted over so long.
_SPAN_S = 2.0
#: So long before the flush and after it.
_STEADY_S = 15.0


@click.command()
@click.option("--jobs", default=60, show_default=True, help="Of one second, for each worker.")
@click.option("--json", "as_json", is_flag=True)
def main(jobs: int, as_json: bool) -> None:
    """Measure the overhead with one worker and with three, then flush Redis under three."""
    with tempfile.TemporaryDirectory(prefix="ns-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # Postgres may run as another user
        stack = open_stack(Path(folder))
        try:
            stack.up(0)
            facts = {
                "overhead_one_worker": _overhead(stack, jobs, n_workers=1),
                "overhead_three_workers": _overhead(stack, jobs, n_workers=_WORKERS),
                **_flush(stack),
            }
        finally:
            stack.down()
    print(json.dumps(facts) if as_json else "\n".join(f"{k:24} {v}" for k, v in facts.items()))


def _overhead(stack: Stack, jobs_each: int, *, n_workers: int) -> float:
    """Seconds that workers held no job, or longer than it takes, for each second of work."""
    n_jobs = jobs_each * n_workers
    with (
        Database(stack.urls().database_url) as database,
        _run(database, n_jobs + _SPARE * n_workers) as run_id,
        _workers(stack, n_workers, job_s=1.0),
    ):
        while len(_ends(database, run_id)) < n_jobs:
            sleep(0.5)
        with database.begin() as connection:
            wall = connection.execute(
                text(
                    """
                    WITH measured AS (
                        SELECT started_at, finished_at FROM job
                        WHERE run_id = :run AND state = 'done' ORDER BY finished_at LIMIT :jobs)
                    SELECT extract(epoch FROM max(finished_at) - min(started_at)) FROM measured
                    """
                ),
                {"run": run_id, "jobs": n_jobs},
            ).scalar_one()
    return round(float(wall) / jobs_each - 1, 4)


def _flush(stack: Stack) -> dict[str, float]:
    """Jobs a second before Redis is flushed, and seconds until nine tenths of it are back."""
    urls = stack.urls()
    with (
        Database(urls.database_url) as database,
        redis.Redis.from_url(urls.redis_url) as broker,
        _run(database, round(_WORKERS * 4 * _STEADY_S / _SHORT_JOB_S)) as run_id,
        _workers(stack, _WORKERS, job_s=_SHORT_JOB_S),
    ):
        while len(_ends(database, run_id)) < 5 * _WORKERS:
            sleep(0.1)
        sleep(_STEADY_S)
        with database.begin() as connection:
            flushed = float(
                connection.execute(
                    text("SELECT extract(epoch FROM clock_timestamp())")
                ).scalar_one()
            )
        broker.flushall()
        sleep(2 * _STEADY_S)
        ends = _ends(database, run_id)
    before = sum(flushed - _STEADY_S < end <= flushed for end in ends) / _STEADY_S
    return {
        "jobs_per_s_before_flush": round(before, 2),
        "seconds_until_back": _back_after(ends, flushed, 0.9 * before),
        "jobs_per_s_after_flush": round(
            sum(flushed + _STEADY_S < end <= flushed + 2 * _STEADY_S for end in ends) / _STEADY_S, 2
        ),
    }


def _back_after(ends: Sequence[float], flushed: float, wanted: float) -> float:
    """Seconds after the flush from which on a span holds as many jobs as are wanted."""
    for tenth in range(round(10 * (2 * _STEADY_S - _SPAN_S))):
        since = flushed + tenth / 10
        if sum(since < end <= since + _SPAN_S for end in ends) >= wanted * _SPAN_S:
            return tenth / 10
    return float("inf")


def _ends(database: Database, run_id: int) -> list[float]:
    with database.begin() as connection:
        rows = connection.execute(
            text(
                "SELECT extract(epoch FROM finished_at) AS at FROM job "
                "WHERE run_id = :run AND state = 'done'"
            ),
            {"run": run_id},
        )
        return [float(row.at) for row in rows]


@contextmanager
def _run(database: Database, n_jobs: int) -> Iterator[int]:
    run_id = add_index_run(database, n_jobs, n_queued=n_jobs)
    try:
        yield run_id
    finally:
        with database.begin() as connection:
            runs.set_run_state(connection, run_id, RunState.CANCELLED)


@contextmanager
def _workers(stack: Stack, count: int, *, job_s: float) -> Iterator[None]:
    environment = os.environ | {
        "NIGHTSHIFT_DATA_DIR": str(stack.data_dir),
        "OMP_NUM_THREADS": "1",
        _JOB_S: str(job_s),
    }
    command = [sys.executable, "-m", "benchmarks.delivery", "worker"]
    started = [subprocess.Popen(command, env=environment) for _ in range(count)]
    try:
        yield
    finally:
        for entry in started:
            entry.terminate()
        for entry in started:
            entry.wait()


def _work() -> int:
    """A worker whose embed jobs sleep, in steps as a model takes them."""
    job_s = float(os.environ[_JOB_S])

    def do_nothing(
        session: WorkerSession,
        claim: AnyClaim,
        progress: Progress,
        _model: object,
    ) -> None:
        until = monotonic() + job_s
        for step in range(1, _STEPS + 1):
            sleep(max(0.0, until - (1 - step / _STEPS) * job_s - monotonic()))
            progress.step()
        with session.ledger.finish(claim):
            pass

    # A job of a known length has no model to load.
    job_function = partial(
        do_job,
        stage_functions={Stage.EMBED: do_nothing},
        load_model=lambda _, run: LoadedModel(stage=run.stage),
    )
    return run_worker(
        Settings(), stages=frozenset({Stage.EMBED}), device="cpu", job_function=job_function
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        raise SystemExit(_work())
    main()
