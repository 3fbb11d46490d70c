"""`python -m benchmarks.chaos.plain_celery`: the same faults against Celery as it comes.

Three workers with `acks_late`, `reject_on_worker_lost` and retries of any error share one queue in
Redis. A task sleeps a little and inserts its number into Postgres. A producer that keeps a window
of messages in the queue sends each number once. Milvus takes no part, so its kills are left out.

Workers may go deaf: Redis is away as one acknowledges, and it never takes a message again. When
nothing has moved for a while an operator starts them again, and that is counted.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import monotonic, sleep

import click
import psycopg2
import redis
from celery import Celery
from sqlalchemy import make_url

from benchmarks.chaos.schedule import draw_kinds
from nightshift.stack import Stack

_log = logging.getLogger(__name__)

_WORKERS = 3
_WINDOW = 12
_TASK_S = 0.5
#: Ten times as long as a task.
_VISIBILITY_S = 5
#: Messages wait, nothing is done: so long, and the operator comes.
_DEAF_S = 90.0
_QUEUE = "plain"
_MODULE = "benchmarks.chaos.plain_celery"

app = Celery("plain", broker=os.environ.get("PLAIN_REDIS"))
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    task_default_queue=_QUEUE,
    worker_prefetch_multiplier=1,
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={"visibility_timeout": _VISIBILITY_S},
)


@app.task(autoretry_for=(Exception,), max_retries=10, default_retry_delay=1)
def work(number: int) -> None:
    """Do one task and keep its result."""
    with _connect(os.environ["PLAIN_DATABASE"], "plain worker") as connection:
        cursor = connection.cursor()
        cursor.execute("INSERT INTO started VALUES (%s, %s)", (number, os.getpid()))
        connection.commit()
        sleep(_TASK_S)
        cursor.execute("INSERT INTO result VALUES (%s)", (number,))


@click.command()
@click.option("--kills", default=100, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(kills: int, seed: int, as_json: bool) -> None:
    """Let KILLS random faults strike, and count the numbers that are missing or come twice."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with tempfile.TemporaryDirectory(prefix="ns-plain-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # Postgres may run as another user
        stack = Stack(Path(folder))
        try:
            stack.up(0, dispatcher=False, services={"postgres", "redis"})
            facts = _measure(stack, Path(folder), kills, seed)
        finally:
            stack.down()
    print(json.dumps(facts) if as_json else "\n".join(f"{k:12} {v}" for k, v in facts.items()))


def _measure(stack: Stack, folder: Path, kills: int, seed: int) -> dict[str, object]:
    urls = stack.urls()
    url = make_url(urls.database_url).set(drivername="postgresql")
    plain = _Plain(
        stack=stack,
        database=url.render_as_string(hide_password=False),
        broker=urls.redis_url,
        log=folder / "celery.log",
    )
    plain.sql("CREATE TABLE started (number int, pid int)")
    plain.sql("CREATE TABLE result (number int)")
    app.conf.broker_url = urls.redis_url
    pending = [kind for kind in draw_kinds(Random(seed), kills) if kind in _FAULTS]
    n_tasks = 6 * kills
    start = monotonic()
    try:
        plain.start_workers()
        landed = _disturb(plain, pending, n_tasks)
        _await_quiet(plain)
    finally:
        plain.stop_workers()
    counts = Counter(number for (number,) in plain.sql("SELECT number FROM result"))
    return {
        "tasks": n_tasks,
        "faults": landed.total(),
        "kinds": dict(landed),
        "lost": sum(counts[number] == 0 for number in range(n_tasks)),
        "duplicated": sum(count - 1 for count in counts.values()),
        "rescues": plain.rescues,
        "seconds": round(monotonic() - start, 1),
    }


def _disturb(plain: "_Plain", pending: list[str], n_tasks: int) -> Counter[str]:
    """Send the tasks through a window, and strike as often as the share of those sent is due."""
    landed: Counter[str] = Counter()
    sent, total = 0, len(pending)
    while sent < n_tasks:
        try:
            if plain.waiting() >= _WINDOW:
                plain.look_after()
                sleep(0.2)
                continue
            work.apply_async((sent,), retry=False)
        except (redis.RedisError, OSError, app.connection_for_write().connection_errors):
            sleep(0.2)
            continue
        sent += 1
        due = total * sent / n_tasks
        for kind in list(pending):
            if landed.total() >= due:
                break
            if _FAULTS[kind](plain):
                _log.info("fault %d: %s", landed.total() + 1, kind)
                pending.remove(kind)
                landed[kind] += 1
    return landed


def _await_quiet(plain: "_Plain") -> None:
    """Return when no task has ended for several visibility timeouts."""
    since, before = monotonic(), -1
    while monotonic() - since < 6 * _VISIBILITY_S:
        now = int(str(plain.sql("SELECT count(*) FROM result")[0][0]))
        if now != before:
            since, before = monotonic(), now
        elif plain.waiting():
            plain.look_after()
        sleep(0.5)


@dataclass(slots=True, kw_only=True)
class _Plain:
    """Three Celery workers and what they hold."""

    stack: Stack
    database: str
    broker: str
    log: Path
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    #: Times that the operator started all workers again.
    rescues: int = 0
    _done: int = -1
    _moved: float = field(default_factory=monotonic)

    def start_workers(self) -> None:
        """Start those that do not run."""
        self.workers = [worker for worker in self.workers if worker.poll() is None]
        while len(self.workers) < _WORKERS:
            name = f"w{monotonic()}@plain"
            command = f"-m celery -A {_MODULE} worker -P solo -n {name} --without-gossip".split()
            environment = {"PLAIN_REDIS": self.broker, "PLAIN_DATABASE": self.database}
            with self.log.open("ab") as log:
                self.workers.append(
                    subprocess.Popen(
                        [sys.executable, *command],
                        env=os.environ | environment,
                        stdout=log,
                        stderr=log,
                    )
                )

    def look_after(self) -> None:
        """Start all workers again where none has done anything for a while."""
        done = int(str(self.sql("SELECT count(*) FROM result")[0][0]))
        if done != self._done:
            self._done, self._moved = done, monotonic()
        elif monotonic() - self._moved > _DEAF_S:
            self.rescues += 1
            self._moved = monotonic()
            _log.info("the operator starts the workers again")
            self.stop_workers()
            self.start_workers()

    def stop_workers(self) -> None:
        """End all."""
        for worker in self.workers:
            worker.kill()
            worker.wait()

    def sql(self, statement: str) -> list[tuple[object, ...]]:
        """Run one statement in a transaction of its own."""
        with _connect(self.database, "plain") as connection:
            cursor = connection.cursor()
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def waiting(self) -> int:
        """Messages in the queue."""
        with redis.Redis.from_url(self.broker) as client:
            return int(client.llen(_QUEUE))

    def busy(self) -> list[tuple[int, int]]:
        """(pid, number) of the tasks in hand."""
        rows = self.sql(
            "SELECT pid, number FROM started EXCEPT SELECT s.pid, s.number FROM started s "
            "JOIN result r ON r.number = s.number"
        )
        alive = {worker.pid for worker in self.workers if worker.poll() is None}
        return [(int(str(pid)), int(str(number))) for pid, number in rows if pid in alive]


def _kill_worker(plain: _Plain) -> bool:
    for pid, _ in plain.busy():
        os.kill(pid, signal.SIGKILL)
        next(worker for worker in plain.workers if worker.pid == pid).wait()
        plain.start_workers()
        return True
    return False


def _freeze_worker(plain: _Plain) -> bool:
    for pid, _ in plain.busy():
        os.kill(pid, signal.SIGSTOP)
        sleep(3 * _VISIBILITY_S)
        os.kill(pid, signal.SIGCONT)
        return True
    return False


def _restart(service: str) -> Callable[[_Plain], bool]:
    def strike(plain: _Plain) -> bool:
        if not plain.busy():
            return False
        plain.stack.kill(service)
        plain.stack.up(0, dispatcher=False, services={service})
        return True

    return strike


def _flush_redis(plain: _Plain) -> bool:
    if not plain.busy():
        return False
    with redis.Redis.from_url(plain.broker) as client:
        client.flushall()
    return True


def _duplicate_messages(plain: _Plain) -> bool:
    with redis.Redis.from_url(plain.broker) as client:
        waiting = client.lrange(_QUEUE, 0, -1)
        return bool(waiting) and bool(client.lpush(_QUEUE, *waiting))


def _reorder_messages(plain: _Plain) -> bool:
    with redis.Redis.from_url(plain.broker) as client, client.pipeline() as pipeline:
        waiting = pipeline.lrange(_QUEUE, 0, -1).delete(_QUEUE).execute()[0]
        return bool(waiting) and bool(client.lpush(_QUEUE, *waiting))


def _drop_connections(plain: _Plain) -> bool:
    dropped = plain.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'plain worker'"
    )
    return bool(dropped)


_FAULTS: dict[str, Callable[[_Plain], bool]] = {
    "kill-worker": _kill_worker,
    "freeze-worker": _freeze_worker,
    "kill-redis": _restart("redis"),
    "flush-redis": _flush_redis,
    "kill-postgres": _restart("postgres"),
    "duplicate-messages": _duplicate_messages,
    "reorder-messages": _reorder_messages,
    "drop-connections": _drop_connections,
}


def _connect(url: str, application: str) -> "psycopg2.extensions.connection":
    return psycopg2.connect(url, application_name=application, connect_timeout=10)


if __name__ == "__main__":
    # The workers import the task under this name.
    from benchmarks.chaos.plain_celery import main as run

    run()
