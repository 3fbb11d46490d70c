"""Services that die, and a Redis that forgets."""

import redis

from nightshift.stack.faults.site import Site

__all__ = ["flush_redis", "kill_milvus", "kill_postgres", "kill_redis"]


def kill_redis(site: Site) -> str | None:
    """SIGKILL Redis and start it again."""
    return _kill(site, "redis")


def kill_postgres(site: Site) -> str | None:
    """SIGKILL Postgres and start it again."""
    return _kill(site, "postgres")


def kill_milvus(site: Site) -> str | None:
    """SIGKILL Milvus and start it again."""
    return _kill(site, "milvus")


def flush_redis(site: Site) -> str | None:
    """Empty Redis of everything, doorbells that workers have taken among it."""
    held = site.in_hand()
    if not held:
        return None
    with redis.Redis.from_url(site.stack.urls().redis_url) as client:
        keys = client.dbsize()
        client.flushall()
    return f"flushed {keys} keys of Redis with {len(held)} jobs in hand"


def _kill(site: Site, service: str) -> str | None:
    held = site.in_hand()
    if not held:
        return None
    site.stack.kill(service)
    site.stack.up(0, dispatcher=False, services={service})
    return f"killed and restarted {service} with {len(held)} jobs in hand"
