"""Faults that deliver messages twice or in another order."""

from collections.abc import Callable

import redis
from sqlalchemy import text

from nightshift.stack.faults.target import FaultTarget
from nightshift.stores.broker.broker import Broker

__all__ = ["duplicate_messages", "reorder_messages"]

#: Lua: reverses the list of a queue, and returns its length.
_REVERSE = """
local messages = redis.call('LRANGE', KEYS[1], 0, -1)
redis.call('DEL', KEYS[1])
for _, message in ipairs(messages) do redis.call('LPUSH', KEYS[1], message) end
return #messages
"""

#: Selects the jobs of a run that are not done.
_OPEN_JOBS = text(
    "SELECT queue, id FROM job WHERE run_id = :run AND state IN ('queued', 'running')"
)


def duplicate_messages(target: FaultTarget) -> str | None:
    """Copy the messages that wait in Redis, and ring again for the jobs that workers hold."""
    held = {job.job_id for job in target.held_jobs()}
    if not held:
        return None
    n_waiting = _sum_over_queues(target, _copy_all)
    broker = Broker(target.stack.urls().redis_url)
    try:
        for queue, job_id in _open_jobs(target):
            if job_id in held:
                broker.ring(queue, target.run_id, job_id)
    finally:
        broker.close()
    return f"delivered {n_waiting} waiting messages and those of {len(held)} jobs in hand twice"


def reorder_messages(target: FaultTarget) -> str | None:
    """Reverse the order of the messages that wait in Redis."""
    if not target.held_jobs():
        return None
    n_moved = _sum_over_queues(target, _reverse)
    return f"reversed the order of {n_moved} waiting messages" if n_moved > 1 else None


def _copy_all(client: redis.Redis, queue: str) -> int:
    messages = client.lrange(queue, 0, -1)
    if messages:
        client.lpush(queue, *messages)
    return len(messages)


def _reverse(client: redis.Redis, queue: str) -> int:
    return int(client.eval(_REVERSE, 1, queue))


def _sum_over_queues(target: FaultTarget, change: Callable[[redis.Redis, str], int]) -> int:
    queues = sorted({queue for queue, _ in _open_jobs(target)})
    with redis.Redis.from_url(target.stack.urls().redis_url) as client:
        return sum(change(client, queue) for queue in queues)


def _open_jobs(target: FaultTarget) -> list[tuple[str, int]]:
    """Queue and id of the run's jobs that are not done."""
    with target.database.begin() as connection:
        rows = connection.execute(_OPEN_JOBS, {"run": target.run_id})
        return [(row.queue, row.id) for row in rows]
