"""Faults that kill a service or empty Redis."""

import redis

from nightshift.stack.faults.target import FaultTarget

__all__ = ["flush_redis", "kill_milvus", "kill_postgres", "kill_redis"]


def kill_redis(target: FaultTarget) -> str | None:
    """SIGKILL Redis and start it again."""
    return _kill_and_restart(target, "redis")


def kill_postgres(target: FaultTarget) -> str | None:
    """SIGKILL Postgres and start it again."""
    return _kill_and_restart(target, "postgres")


def kill_milvus(target: FaultTarget) -> str | None:
    """SIGKILL Milvus and start it again."""
    return _kill_and_restart(target, "milvus")


def flush_redis(target: FaultTarget) -> str | None:
    """Delete everything in Redis, also doorbells that workers have taken."""
    held_jobs = target.held_jobs()
    if not held_jobs:
        return None
    with redis.Redis.from_url(target.stack.urls().redis_url) as client:
        n_keys = client.dbsize()
        client.flushall()
    return f"flushed {n_keys} keys of Redis with {len(held_jobs)} jobs in hand"


def _kill_and_restart(target: FaultTarget, service: str) -> str | None:
    held_jobs = target.held_jobs()
    if not held_jobs:
        return None
    target.stack.kill(service)
    target.stack.up(0, dispatcher=False, services={service})
    return f"killed and restarted {service} with {len(held_jobs)} jobs in hand"
