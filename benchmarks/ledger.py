"""Cost of a job in the ledger, with few jobs in it and with a million."""

import base64
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import click
import psutil
import redis

from benchmarks.runs import EMBED_QUEUE, add_index_run
from nightshift.producers.dispatcher import Dispatcher
from nightshift.results.runs import show_run
from nightshift.schema.settings import Settings
from nightshift.schema.states import RunState
from nightshift.stack import Stack
from nightshift.stores.broker.broker import Broker
from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.ledger import runs
from nightshift.stores.ledger.claims import Ledger
from nightshift.stores.postgres.database import Database


@click.command()
@click.option("--sizes", default="1000,10000,100000", show_default=True, help="Jobs in the run.")
@click.option("--jobs", default=400, show_default=True, help="Done while the clock runs.")
@click.option("--json", "as_json", is_flag=True)
def main(sizes: str, jobs: int, as_json: bool) -> None:
    """Dispatch, claim and finish JOBS jobs of runs of each size, most of which is done already."""
    with tempfile.TemporaryDirectory(prefix="ns-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        stack = Stack(Path(folder))
        try:
            stack.up(0, dispatcher=False)
            rows = [_measure(stack, int(size), jobs) for size in sizes.split(",")]
        finally:
            stack.down()
    if as_json:
        print(json.dumps(rows))
        return
    print("\t".join(rows[0]))
    for row in rows:
        print("\t".join(f"{value:.4g}" for value in row.values()))


def _measure(stack: Stack, size: int, n_jobs: int) -> dict[str, float]:
    urls = stack.urls()
    settings = Settings(_env_file=None, data_dir=stack.data_dir)  # type: ignore[call-arg]
    vectors = VectorStore(urls.milvus_uri, urls.milvus_token)
    broker = Broker(urls.redis_url)
    with (
        Database(urls.database_url) as database,
        redis.Redis.from_url(urls.redis_url) as server,
    ):
        start = perf_counter()
        run_id = add_index_run(database, size, n_queued=min(size, 2 * n_jobs))
        insert_s = perf_counter() - start
        dispatcher = Dispatcher(
            database=database, vectors=vectors, broker=broker, settings=settings
        )
        ledger = Ledger(database, worker_id="benchmark", lease_s=60, max_attempts=3)
        before = int(server.info("memory")["used_memory"])
        peak = 0
        cpu_before = _cpu_s()
        ticks: list[float] = []
        dones: list[float] = []
        while len(dones) < n_jobs:
            ticks.append(_timed(dispatcher.tick))
            peak = max(peak, int(server.info("memory")["used_memory"]) - before)
            while message := server.rpop(EMBED_QUEUE):
                dones.append(_timed(lambda m=message: _work(ledger, m)))
        cpu_s = (_cpu_s() - cpu_before) / len(dones)
        cpu_before = _cpu_s()
        shows = [_timed(lambda: show_run(database, run_id)) for _ in range(30)]
        show_cpu_s = (_cpu_s() - cpu_before) / len(shows)
        with database.begin() as connection:
            runs.set_run_state(connection, run_id, RunState.CANCELLED)
    broker.close()
    vectors.close()
    window = settings.window_per_worker
    dispatch, work = median(ticks) / window, median(dones)
    return {
        "jobs": size,
        "insert_s": insert_s,
        "dispatch_ms_per_job": dispatch * 1e3,
        "claim_and_finish_ms": work * 1e3,
        "jobs_per_s": 1 / (dispatch + work),
        "cpu_ms_per_job": cpu_s * 1e3,
        "share_of_1s_job": dispatch + work,
        "run_show_ms": median(shows) * 1e3,
        "run_show_max_ms": max(shows) * 1e3,
        "run_show_cpu_ms": show_cpu_s * 1e3,
        "redis_kib": peak / 1024,
    }


def _cpu_s() -> float:
    """CPU time of this process and of the services, which other programs cannot stretch."""
    own = psutil.Process()
    times = [entry.cpu_times() for entry in (own, *own.children(recursive=True))]
    return sum(entry.user + entry.system for entry in times)


def _timed(action: Callable[[], object]) -> float:
    start = perf_counter()
    action()
    return perf_counter() - start


def _work(ledger: Ledger, message: bytes) -> None:
    """Answer a doorbell as a worker does, with nothing to compute."""
    body = json.loads(base64.b64decode(json.loads(message)["body"]))[1]
    claim = ledger.claim(body["run_id"], body["job_id"])
    assert claim is not None
    with ledger.finish(claim):
        pass


if __name__ == "__main__":
    main()
