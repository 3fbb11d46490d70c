"""What can be asked of the services about their health; nothing is changed."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import redis
from sqlalchemy import Connection, text

from nightshift.schema.errors import ServiceUnavailableError
from nightshift.stores.progress_counts import runs_with_running_jobs

__all__ = [
    "IndexHealth",
    "RedisFacts",
    "count_stuck_jobs",
    "dispatcher_is_elected",
    "free_disk_gib",
    "index_health",
    "postgres_version",
    "redis_facts",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisFacts:
    """Settings of Redis that decide whether doorbells survive."""

    version: str
    eviction: str
    append_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexHealth:
    """An index in Postgres against its collection in Milvus."""

    #: Live in Postgres, absent from Milvus: searches miss these items.
    missing: int
    #: In Milvus, not live in Postgres: searches drop them, they only cost space.
    orphans: int


def postgres_version(connection: Connection) -> str:
    """Such as `18.4`."""
    return str(connection.execute(text("SHOW server_version")).scalar_one()).split()[0]


def dispatcher_is_elected(connection: Connection) -> bool:
    """Whether some dispatcher holds the lease right now."""
    return bool(
        connection.execute(
            text(
                "SELECT EXISTS (SELECT FROM lease WHERE name = 'dispatcher' "
                "AND expires_at > clock_timestamp())"
            )
        ).scalar_one()
    )


def count_stuck_jobs(connection: Connection) -> int:
    """Jobs whose lease ran out over a minute ago: nobody takes them back."""
    return int(
        connection.execute(
            text(
                "SELECT count(*) FROM job WHERE run_id = ANY(:runs) AND state = 'running' "
                "AND lease_until < clock_timestamp() - interval '1 minute'"
            ),
            {"runs": runs_with_running_jobs(connection)},
        ).scalar_one()
    )


def index_health(connection: Connection, index_id: int, present: set[str]) -> IndexHealth:
    """Compare the live keys of an index with those that Milvus has."""
    rows = connection.execute(
        text("SELECT key FROM embedding WHERE index_id = :index").execution_options(yield_per=5000),
        {"index": index_id},
    )
    live = missing = 0
    for row in rows:
        live += 1
        missing += row.key not in present
    return IndexHealth(missing=missing, orphans=len(present) - (live - missing))


def redis_facts(redis_url: str) -> RedisFacts:
    """Version and durability settings.

    Raises:
        ServiceUnavailableError: When Redis cannot be reached.
    """
    try:
        with redis.Redis.from_url(redis_url, socket_timeout=10, decode_responses=True) as client:
            return RedisFacts(
                version=str(client.info("server")["redis_version"]),
                eviction=str(client.config_get("maxmemory-policy")["maxmemory-policy"]),
                append_only=client.config_get("appendonly")["appendonly"] == "yes",
            )
    except (redis.RedisError, OSError) as error:
        raise ServiceUnavailableError(f"Redis cannot be used: {error}", "redis") from error


def free_disk_gib(folder: Path) -> float:
    """Free space where a folder lies, in GiB."""
    return shutil.disk_usage(folder).free / 2**30
