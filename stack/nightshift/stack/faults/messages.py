"""Messages that come twice, and messages that come in another order."""

from collections.abc import Callable

import redis
from sqlalchemy import text

from nightshift.stack.faults.site import Site
from nightshift.stores.broker.broker import Broker

__all__ = ["duplicate_messages", "reorder_messages"]

_REVERSE = """
local messages = redis.call('LRANGE', KEYS[1], 0, -1)
redis.call('DEL', KEYS[1])
for _, message in ipairs(messages) do redis.call('LPUSH', KEYS[1], message) end
return #messages
"""


def duplicate_messages(site: Site) -> str | None:
    """Deliver again what waits in Redis, and ring once more for the jobs in hand."""
    held = {one.job_id for one in site.in_hand()}
    if not held:
        return None
    waiting = _each_queue(site, _copy_all)
    broker = Broker(site.stack.urls().redis_url)
    try:
        for queue, job_id in _jobs(site):
            if job_id in held:
                broker.ring(queue, site.run_id, job_id)
    finally:
        broker.close()
    return f"delivered {waiting} waiting messages and those of {len(held)} jobs in hand twice"


def reorder_messages(site: Site) -> str | None:
    """Reverse the order of the messages that wait in Redis."""
    if not site.in_hand():
        return None
    moved = _each_queue(site, lambda client, queue: int(client.eval(_REVERSE, 1, queue)))
    return f"reversed the order of {moved} waiting messages" if moved > 1 else None


def _copy_all(client: redis.Redis, queue: str) -> int:
    waiting = client.lrange(queue, 0, -1)
    if waiting:
        client.lpush(queue, *waiting)
    return len(waiting)


def _each_queue(site: Site, change: Callable[[redis.Redis, str], int]) -> int:
    with redis.Redis.from_url(site.stack.urls().redis_url) as client:
        return sum(change(client, queue) for queue in sorted({q for q, _ in _jobs(site)}))


def _jobs(site: Site) -> list[tuple[str, int]]:
    """(queue, id) of the run's jobs that are not done."""
    with site.database.begin() as connection:
        rows = connection.execute(
            text(
                "SELECT queue, id FROM job WHERE run_id = :run AND state IN ('queued', 'running')"
            ),
            {"run": site.run_id},
        )
        return [(row.queue, row.id) for row in rows]
