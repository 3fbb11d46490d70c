"""Checks of Postgres and Redis for `nightshift doctor`."""

from collections.abc import Iterator

from nightshift.migrations import current_revision, head_revision
from nightshift.schema.findings import Finding
from nightshift.stores import health
from nightshift.stores.postgres.database import Database

__all__ = ["check_postgres", "check_redis"]


def check_postgres(database: Database) -> Iterator[Finding]:
    """Check that Postgres takes writes and has the revision that this program needs."""
    with database.begin() as connection:
        server = health.postgres_version(connection)
        revision = current_revision(connection)
        read_only = health.postgres_refuses_writes(connection)
    if read_only:
        yield Finding(
            check="postgres",
            level="error",
            message="takes no writes: it is a replica, or default_transaction_read_only is on; "
            "dispatcher and workers wait and go on by themselves",
        )
    if revision != head_revision():
        yield Finding(
            check="postgres",
            level="error",
            message=f"at revision {revision}, this program needs {head_revision()}: "
            "`nightshift db upgrade`",
        )
    elif not read_only:
        yield Finding(check="postgres", level="ok", message=f"{server}, revision {revision}")


def check_redis(redis_url: str) -> Iterator[Finding]:
    """Check that Redis takes writes, keeps them on disk, and that nobody else uses our queues."""
    facts = health.redis_facts(redis_url)
    if facts.refuses:
        yield Finding(
            check="redis",
            level="error",
            message=f"refuses writes ({facts.refuses}): look at its memory, its disk and whether "
            "it is a replica; workers wait and go on by themselves",
        )
    if facts.foreign_keys:
        yield Finding(
            check="redis",
            level="error",
            message="something else uses the names of our queues ("
            f"{', '.join(facts.foreign_keys[:5])}), so no message gets through: give Nightshift a "
            "Redis database of its own, or delete these keys",
        )
    if facts.eviction not in (None, "noeviction"):
        yield Finding(
            check="redis",
            level="warning",
            message=f"evicts by {facts.eviction} when it is full: set maxmemory-policy noeviction",
        )
    if not facts.append_only:
        yield Finding(
            check="redis",
            level="warning",
            message="keeps nothing on disk; the dispatcher sends again the messages that a restart "
            "loses, but appendonly yes saves that time",
        )
    if not (facts.refuses or facts.foreign_keys):
        yield Finding(check="redis", level="ok", message=facts.version)
