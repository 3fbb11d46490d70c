"""A Redis that answers but refuses: workers wait, connect again, and go on."""

import inspect
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread

import redis
from redis import exceptions

from nightshift.schema.errors import ServiceUnavailableError
from nightshift.stores.broker.broker import Wire
from nightshift.stores.broker.redis_transport import Transport
from tests.workers.night import Night


def test_every_error_of_redis_is_waited_out() -> None:
    errors = [
        kind
        for _, kind in inspect.getmembers(exceptions, inspect.isclass)
        if issubclass(kind, exceptions.RedisError)
    ]

    assert exceptions.OutOfMemoryError in errors
    assert all(issubclass(kind, Transport.connection_errors) for kind in errors)


@contextmanager
def _replica(broker: redis.Redis) -> Iterator[str]:
    broker.execute_command("REPLICAOF", "127.0.0.1", "1")
    yield "UNBLOCKED|ReadOnly"
    broker.execute_command("REPLICAOF", "NO", "ONE")


@contextmanager
def _forbidden(broker: redis.Redis) -> Iterator[str]:
    broker.execute_command("ACL", "SETUSER", "default", "-brpop")
    yield "NoPermission"
    broker.execute_command("ACL", "SETUSER", "default", "+@all")


@contextmanager
def _cannot_save(broker: redis.Redis) -> Iterator[str]:
    folder = broker.config_get("dir")["dir"]
    broker.config_set("appendonly", "no")
    broker.config_set("save", "3600 1")
    broker.config_set("dir", "/proc/sys")
    broker.execute_command("BGSAVE")
    yield "MISCONF"
    broker.config_set("dir", folder)
    broker.config_set("save", "")
    broker.config_set("appendonly", "yes")


@contextmanager
def _busy(broker: redis.Redis) -> Iterator[str]:
    broker.config_set("lua-time-limit", 50)

    def spin() -> None:
        with suppress(redis.RedisError), broker.client() as own:
            own.eval("while true do end", 0)

    thread = Thread(target=spin)
    thread.start()
    yield "BUSY"
    with suppress(redis.RedisError):
        broker.script_kill()
    thread.join()


def test_an_idle_worker_outlasts_a_redis_that_refuses(busy_night: Night) -> None:
    (_, worker) = busy_night.processes
    broker, wire = _broker(busy_night), Wire(_redis_url(busy_night))
    for number, fault in enumerate((_replica, _forbidden, _cannot_save, _busy), 1):
        seen = len(busy_night.log_of(worker))
        with fault(broker) as words:
            _wait_for(busy_night, worker, rf"waiting for redis: .*({words})", seen)

        # No run has this number, and the worker says so.
        busy_night.wait_until(lambda number=number: _rings(wire, number))
        _wait_for(busy_night, worker, f"job {number} of run 999999", seen)
    wire.close()
    assert worker.poll() is None


def test_a_message_that_a_full_redis_gives_away_does_not_end_the_worker(busy_night: Night) -> None:
    (_, worker) = busy_night.processes
    broker, wire = _broker(busy_night), Wire(_redis_url(busy_night))
    worker.send_signal(signal.SIGSTOP)
    wire.ring("idle", 999999, 77)
    broker.config_set("maxmemory", "1mb")
    seen = len(busy_night.log_of(worker))
    worker.send_signal(signal.SIGCONT)
    try:
        _wait_for(busy_night, worker, "waiting for redis: .*maxmemory", seen)
    finally:
        broker.config_set("maxmemory", "0")

    wire.ring("idle", 999999, 78)
    _wait_for(busy_night, worker, "job 78 of run 999999", seen)
    wire.close()
    assert worker.poll() is None


def _rings(wire: Wire, number: int) -> str | None:
    try:
        wire.ring("idle", 999999, number)
    except ServiceUnavailableError:
        return None
    return "rung"


def _wait_for(night: Night, worker: subprocess.Popen[bytes], words: str, since: int) -> None:
    night.wait_until(lambda: "said" if re.search(words, night.log_of(worker)[since:]) else None)


def _redis_url(night: Night) -> str:
    assert night.settings.redis_url
    return night.settings.redis_url.get_secret_value()


def _broker(night: Night) -> redis.Redis:
    return redis.Redis.from_url(_redis_url(night), decode_responses=True)
