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
from nightshift.stores.broker.broker import Broker
from nightshift.stores.broker.redis_transport import Transport
from tests.nights.night import Night


def test_every_error_of_redis_is_waited_out() -> None:
    errors = [
        kind
        for _, kind in inspect.getmembers(exceptions, inspect.isclass)
        if issubclass(kind, exceptions.RedisError)
    ]

    assert exceptions.OutOfMemoryError in errors
    assert all(issubclass(kind, Transport.connection_errors) for kind in errors)


@contextmanager
def _replica(server: redis.Redis) -> Iterator[str]:
    server.execute_command("REPLICAOF", "127.0.0.1", "1")
    yield "UNBLOCKED|ReadOnly"
    server.execute_command("REPLICAOF", "NO", "ONE")


@contextmanager
def _forbidden(server: redis.Redis) -> Iterator[str]:
    server.execute_command("ACL", "SETUSER", "default", "-brpop")
    yield "NoPermission"
    server.execute_command("ACL", "SETUSER", "default", "+@all")


@contextmanager
def _cannot_save(server: redis.Redis) -> Iterator[str]:
    folder = server.config_get("dir")["dir"]
    server.config_set("appendonly", "no")
    server.config_set("save", "3600 1")
    server.config_set("dir", "/proc/sys")
    server.execute_command("BGSAVE")
    yield "MISCONF"
    server.config_set("dir", folder)
    server.config_set("save", "")
    server.config_set("appendonly", "yes")


@contextmanager
def _busy(server: redis.Redis) -> Iterator[str]:
    server.config_set("lua-time-limit", 50)

    def spin() -> None:
        with suppress(redis.RedisError), server.client() as own:
            own.eval("while true do end", 0)

    thread = Thread(target=spin)
    thread.start()
    yield "BUSY"
    with suppress(redis.RedisError):
        server.script_kill()
    thread.join()


def test_an_idle_worker_outlasts_a_redis_that_refuses(busy_night: Night) -> None:
    (_, worker) = busy_night.processes
    server, broker = _server(busy_night), Broker(_redis_url(busy_night))
    for number, fault in enumerate((_replica, _forbidden, _cannot_save, _busy), 1):
        recorded = len(busy_night.log_of(worker))
        with fault(server) as words:
            _wait_for(busy_night, worker, rf"waiting for redis: .*({words})", recorded)

        # No run has this number, and the worker says so.
        busy_night.wait_until(lambda number=number: _rings(broker, number))
        _wait_for(busy_night, worker, f"job {number} of run 999999", recorded)
    broker.close()
    assert worker.poll() is None


def test_a_message_that_a_full_redis_gives_away_does_not_end_the_worker(busy_night: Night) -> None:
    (_, worker) = busy_night.processes
    server, broker = _server(busy_night), Broker(_redis_url(busy_night))
    worker.send_signal(signal.SIGSTOP)
    broker.ring("idle", 999999, 77)
    server.config_set("maxmemory", "1mb")
    recorded = len(busy_night.log_of(worker))
    worker.send_signal(signal.SIGCONT)
    try:
        _wait_for(busy_night, worker, "waiting for redis: .*maxmemory", recorded)
    finally:
        server.config_set("maxmemory", "0")

    broker.ring("idle", 999999, 78)
    _wait_for(busy_night, worker, "job 78 of run 999999", recorded)
    broker.close()
    assert worker.poll() is None


def _rings(broker: Broker, number: int) -> str | None:
    try:
        broker.ring("idle", 999999, number)
    except ServiceUnavailableError:
        return None
    return "rung"


def _wait_for(night: Night, worker: subprocess.Popen[bytes], words: str, since: int) -> None:
    night.wait_until(lambda: "said" if re.search(words, night.log_of(worker)[since:]) else None)


def _redis_url(night: Night) -> str:
    assert night.settings.redis_url
    return night.settings.redis_url.get_secret_value()


def _server(night: Night) -> redis.Redis:
    return redis.Redis.from_url(_redis_url(night), decode_responses=True)
