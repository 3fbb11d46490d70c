"""What can be asked of the services about their health; nothing is left changed."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import Connection, text

from nightshift.schema.errors import ServiceUnavailableError
from nightshift.schema.states import Stage
from nightshift.stores.ledger.counters import runs_with_running_jobs

__all__ = [
    "DiskRoom",
    "IndexHealth",
    "RedisFacts",
    "count_stuck_jobs",
    "disk_room",
    "dispatcher_is_elected",
    "folders_in_use",
    "index_health",
    "postgres_refuses_writes",
    "postgres_version",
    "redis_facts",
]

#: A service that takes longer does not answer.
_ANSWER_S = 5.0
_PROBE = "nightshift:doctor"
_KOMBU_KEYS = {"unacked": "hash", "unacked_index": "zset"}
_STAGES = frozenset(stage.value for stage in Stage)


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisFacts:
    """Settings of Redis that decide whether doorbells survive."""

    version: str
    #: None where it does not say.
    eviction: str | None
    append_only: bool
    #: Its answer to a write; empty where it took it.
    refuses: str
    #: Keys with the names of our queues that hold something else: nobody can send or receive.
    foreign_keys: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskRoom:
    """What a file system can still take."""

    free_gib: float
    #: Whether it has no room for another file, however small.
    no_files: bool
    #: Why a small write failed; empty where it did not, or was not allowed.
    refuses: str
    #: Folders of one device share one file system.
    device: int


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


def postgres_refuses_writes(connection: Connection) -> bool:
    """Whether transactions are read-only, as on a replica, or where the server is set so."""
    return bool(
        connection.execute(
            text("SELECT current_setting('transaction_read_only')::bool")
        ).scalar_one()
    )


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
    """Version and durability settings, and whether a write succeeds.

    Raises:
        ServiceUnavailableError: When Redis cannot be reached.
    """
    client = redis.Redis.from_url(
        redis_url,
        socket_timeout=_ANSWER_S,
        socket_connect_timeout=_ANSWER_S,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
        encoding_errors="replace",  # keys of others may be anything
    )
    try:
        with client:
            return RedisFacts(
                version=str(client.info("server")["redis_version"]),
                eviction=_setting(client, "maxmemory-policy"),
                append_only=_setting(client, "appendonly") != "no",
                refuses=_refusal(client),
                foreign_keys=tuple(sorted(_foreign_keys(client))),
            )
    except (redis.RedisError, OSError) as error:
        raise ServiceUnavailableError(f"Redis cannot be used: {error}", "redis") from error


def _setting(client: redis.Redis, name: str) -> str | None:
    try:
        return str(client.config_get(name)[name])
    except (redis.ResponseError, KeyError):  # a hosted Redis shows none
        return None


def _refusal(client: redis.Redis) -> str:
    """Why a small write fails, as it does on a replica, without memory or on a full disk."""
    try:
        client.set(_PROBE, "1", ex=10)
        client.delete(_PROBE)
    except redis.ResponseError as error:
        return f"{error}"
    return ""


def _foreign_keys(client: redis.Redis) -> Iterator[str]:
    for name in client.scan_iter(count=1000):
        wanted = _type_of_key(name)
        # It may be gone by now: queues come and go.
        if wanted and client.type(name) not in (wanted, "none"):
            yield name


def _type_of_key(name: str) -> str | None:
    """What kombu keeps under a name; None where the name is none of ours."""
    if name.startswith("_kombu.binding."):
        return "set"
    if name in _KOMBU_KEYS:
        return _KOMBU_KEYS[name]
    return "list" if name.partition(".")[0] in _STAGES else None


def disk_room(folder: Path) -> DiskRoom:
    """What can still be written where a folder lies.

    Statistics of a file system know no quota and no damage, so a few bytes are written too, and
    removed, where this process may.
    """
    free = os.statvfs(folder)
    refuses = ""
    try:
        with TemporaryFile(dir=folder) as probe:
            probe.write(b"\0" * 4096)
            probe.flush()
            os.fsync(probe.fileno())
    except PermissionError:
        pass  # another user's
    except OSError as error:
        refuses = error.strerror or str(error)
    return DiskRoom(
        free_gib=free.f_bavail * free.f_frsize / 2**30,
        # Some file systems count no files.
        no_files=free.f_files > 0 and free.f_favail == 0,
        refuses=refuses,
        device=folder.stat().st_dev,
    )


def folders_in_use(connection: Connection) -> list[Path]:
    """Folders of this machine, beside the data directory, that fill up while runs work.

    Postgres' own, where it lies here and its place may be known, and those of token stores.
    """
    home = connection.execute(
        text(
            "SELECT CASE WHEN pg_has_role('pg_read_all_settings', 'USAGE') "
            "THEN current_setting('data_directory') END"
        )
    ).scalar()
    addresses = connection.execute(text("SELECT DISTINCT address FROM token_set")).scalars()
    named = [home, *addresses] if home else list(addresses)
    folders = (Path(str(name).removeprefix("file://")) for name in named)
    return [folder for folder in folders if folder.is_absolute() and folder.exists()]
