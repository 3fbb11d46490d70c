"""The broker carries doorbells in JSON; whatever else comes over it is dropped and does nothing."""

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from kombu import Connection
from kombu.serialization import register

from nightshift.schema.errors import ServiceUnavailableError
from nightshift.stores.broker.broker import TASK_NAME, Broker

_WORKER = """
import sys
from nightshift.stores.broker.broker import TASK_NAME, make_celery

app = make_celery(sys.argv[1])


@app.task(name=TASK_NAME)
def answer(run_id, job_id):
    print("rung:", run_id, job_id, file=sys.__stdout__, flush=True)  # the other goes to the log


options = {"without_gossip": True, "without_mingle": True, "without_heartbeat": True, "quiet": True}
app.Worker(pool="solo", concurrency=1, queues=["idle"], loglevel="INFO", **options).start()
"""


@pytest.fixture
def worker(redis_url: str, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A worker that prints each doorbell it hears on the queue `idle`, and logs beside it."""
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _WORKER, redis_url],
            env={**os.environ, "C_FORCE_ROOT": "1"},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    yield process
    process.kill()
    process.wait()


class _Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


def test_what_is_no_doorbell_is_dropped_and_the_next_one_is_heard(
    worker: subprocess.Popen[str], redis_url: str, tmp_path: Path
):
    bomb = _Bomb(tmp_path / "touched")
    pickle.loads(pickle.dumps(bomb))
    assert bomb.path.exists(), "it goes off wherever it is unpickled"
    bomb.path.unlink()
    register("bomb", pickle.dumps, pickle.loads, "application/x-python-serialize", "binary")

    def send(body: object, *, task: str = TASK_NAME, serializer: str = "json") -> None:
        headers = {"lang": "py", "task": task, "id": "1", "root_id": "1", "parent_id": None}
        with Connection(redis_url) as connection:
            connection.Producer().publish(
                body, routing_key="idle", serializer=serializer, headers=headers
            )

    send(([], {"run_id": 1, "job_id": bomb}, {}), serializer="bomb")
    send(([], {"run_id": 1, "job_id": 1}, {}), task="os.system")
    send(([], {"run": 1}, {}))
    send(([bomb.path.name], {}, {}))
    broker = Broker(redis_url)
    broker.ring("idle", 7, 8)

    assert worker.stdout is not None
    assert worker.stdout.readline() == "rung: 7 8\n"
    assert not bomb.path.exists()
    assert "Refusing to deserialize" in (tmp_path / "log").read_text()
    with redis.Redis.from_url(redis_url) as client:
        assert client.llen("idle") == 0
    broker.close()


def test_a_redis_that_is_away_is_an_outage():
    broker = Broker("redis://127.0.0.1:9/0")

    with pytest.raises(ServiceUnavailableError):
        broker.ring("rank", 1, 2)
    with pytest.raises(ServiceUnavailableError):
        broker.waiting("rank")
    broker.close()
