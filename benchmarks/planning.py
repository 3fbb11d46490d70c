"""Planning of pairs most of which are known: after few earlier runs, and after many."""

import json
import tempfile
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter, process_time, sleep

import click
import psutil
import redis
from sqlalchemy import text

from benchmarks.cpu_meter import CpuMeter
from benchmarks.planning_runs import PlannedPairs
from benchmarks.runs import add_index_run
from nightshift.producers.dispatcher import Dispatcher
from nightshift.producers.score_planning import begin_planning, plan_scoring
from nightshift.schema.settings import Settings
from nightshift.stack import Stack
from nightshift.stores.broker.broker import Broker
from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.ledger import runs
from nightshift.stores.postgres.database import Database

_POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The measurements of one plan."""

    earlier_runs: int
    pairs: int
    known: float
    #: Of the pairs, linked with their scores and planned.
    seconds: float
    #: Of this process and all services.
    cpu_seconds: float
    #: What this process grew by while it planned.
    rss_mb: float
    #: The longest time that a job of another run waited for its doorbell meanwhile.
    longest_gap_s: float
    db_mb_added: float


@click.command()
@click.option("--pairs", default=100_000, show_default=True)
@click.option("--known", default=0.98, show_default=True, help="Share of pairs with a score.")
@click.option("--earlier", default="3,30", show_default=True, help="Earlier runs, by row.")
@click.option("--json", "as_json", is_flag=True)
def main(pairs: int, known: float, earlier: str, as_json: bool) -> None:
    """Write the candidates of PAIRS pairs as search jobs do, and plan their scoring.

    The last row is of as many new pairs. Seconds cover the commits of the search, which look known
    scores up, and the plan. The earlier runs hold the same candidates.
    """
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="ns-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        stack = Stack(folder)
        try:
            stack.up(0, dispatcher=False)
            with Database(stack.urls().database_url) as database:
                setting = PlannedPairs(database=database, pairs=pairs)
                setting.begin(known)
                done = 0
                for number in sorted(map(int, earlier.split(","))):
                    setting.add_earlier_runs(number - done)
                    done = number
                    rows.append(_measure(stack, database, setting, done, known))
                setting.forget_scores()
                rows.append(_measure(stack, database, setting, done, 0.0))
        finally:
            stack.down()
    if as_json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    for row in rows:
        print(" ".join(f"{key}={value:.4g}" for key, value in asdict(row).items()))


def _measure(
    stack: Stack, database: Database, setting: PlannedPairs, earlier: int, known: float
) -> Row:
    before_mb = _database_mb(database)
    run_id = setting.new_run()
    meter = CpuMeter(stack)
    with _OtherRun(stack, 2 + earlier + (known == 0)) as other:
        cpu, start = meter.seconds() - process_time(), perf_counter()
        own = process_time()
        rss = psutil.Process().memory_info().rss
        setting.search(run_id)
        with database.begin() as connection:
            begin_planning(connection, runs.get_run(connection, run_id))
        plan_scoring(database, run_id, lambda _connection: None)
        seconds = perf_counter() - start
        cpu_seconds = meter.seconds() - process_time() - cpu + (process_time() - own)
        grown = psutil.Process().memory_info().rss - rss
    return Row(
        earlier_runs=earlier,
        pairs=setting.pairs,
        known=known,
        seconds=round(seconds, 2),
        cpu_seconds=round(cpu_seconds, 2),
        rss_mb=round(max(0, grown) / 2**20, 1),
        longest_gap_s=round(other.longest_gap_s, 2),
        db_mb_added=round(_database_mb(database) - before_mb, 1),
    )


@dataclass(slots=True)
class _OtherRun:
    """Another run whose jobs are rung for by a dispatcher, as long as the block lasts."""

    stack: Stack
    #: Of the other run; no two runs have the same number.
    n_jobs: int
    longest_gap_s: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> "_OtherRun":
        urls = self.stack.urls()
        database = Database(urls.database_url)
        run_id = add_index_run(database, self.n_jobs, n_queued=1)
        settings = Settings(_env_file=None, data_dir=self.stack.data_dir)  # type: ignore[call-arg]
        dispatcher = Dispatcher(
            database=database,
            vectors=VectorStore(urls.milvus_uri, urls.milvus_token),
            broker=Broker(urls.redis_url),
            settings=settings,
        )
        for target in (
            lambda: dispatcher.run(self._stop),
            lambda: self._watch(Database(urls.database_url), run_id),
        ):
            thread = threading.Thread(target=target, daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _watch(self, database: Database, run_id: int) -> None:
        """Queue a job again and again, and note how long its doorbell took."""
        broker = redis.Redis.from_url(self.stack.urls().redis_url)
        sleep(1.0)
        while not self._stop.is_set():
            with database.begin() as connection:
                connection.execute(_QUEUE_JOB, {"run": run_id})
            start = perf_counter()
            while not self._stop.is_set():
                with database.begin() as connection:
                    sent = connection.execute(_WAS_RUNG, {"run": run_id}).scalar_one()
                self.longest_gap_s = max(self.longest_gap_s, perf_counter() - start)
                if sent:
                    break
                sleep(_POLL_S)
            # No worker answers, so the doorbells would fill the window.
            broker.flushdb()


def _database_mb(database: Database) -> float:
    with database.begin() as connection:
        return float(connection.execute(_DATABASE_BYTES).scalar_one()) / 1e6


# Queues the first job of a run once more.
_QUEUE_JOB = text("""
    UPDATE job SET state = 'queued', sent_at = NULL, finished_at = NULL, not_before = '-infinity'
    WHERE run_id = :run AND id = 1
""")

# Says whether a doorbell rang for it.
_WAS_RUNG = text("SELECT sent_at IS NOT NULL FROM job WHERE run_id = :run AND id = 1")

# Bytes of the database on disk.
_DATABASE_BYTES = text("SELECT pg_database_size(current_database())")


if __name__ == "__main__":
    main()
