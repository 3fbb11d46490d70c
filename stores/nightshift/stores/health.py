"""Health checks of the services; they leave nothing changed."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryFile

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import Connection, exists, func, select, text

from nightshift.schema.errors import ServiceUnavailableError
from nightshift.schema.ledger_tables import Job
from nightshift.schema.process_tables import Lease
from nightshift.schema.states import JobState, Stage
from nightshift.schema.token_tables import TokenSet
from nightshift.stores.ledger.counters import runs_with_running_jobs

__all__ = [
    "DiskRoom",
    "RedisFacts",
    "count_stuck_jobs",
    "disk_room",
    "dispatcher_is_elected",
    "folders_in_use",
    "postgres_refuses_writes",
    "postgres_version",
    "redis_facts",
]

#: A service that takes longer does not answer.
_TIMEOUT_S = 5.0
_PROBE = "nightshift:doctor"
_KOMBU_KEYS = {"unacked": "hash", "unacked_index": "zset"}
_STAGES = frozenset(stage.value for stage in Stage)


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisFacts:
    """Settings of Redis that decide whether doorbells survive."""

    version: str
    #: None if Redis does not tell it, as a hosted one.
    eviction: str | None
    append_only: bool
    #: Its answer to a write; empty if the write succeeded.
    refuses: str
    #: Keys named like our queues that hold another type: nobody can send or receive.
    foreign_keys: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskRoom:
    """Free space of a file system."""

    free_gib: float
    #: Whether it has no room for another file, however small.
    no_files: bool
    #: Why a small write failed; empty if it succeeded or was not allowed.
    refuses: str
    #: Folders of one device share one file system.
    device: int


def postgres_version(connection: Connection) -> str:
    """The version of the server, such as `18.4`."""
    return str(connection.execute(_SERVER_VERSION).scalar_one()).split()[0]


def postgres_refuses_writes(connection: Connection) -> bool:
    """Check whether transactions are read-only, as on a replica or by a setting of the server."""
    return bool(connection.execute(_IS_READ_ONLY).scalar_one())


def dispatcher_is_elected(connection: Connection) -> bool:
    """Check whether a dispatcher holds the lease now."""
    return bool(
        connection.execute(
            select(
                exists().where(
                    Lease.name == "dispatcher", Lease.expires_at > func.clock_timestamp()
                )
            )
        ).scalar_one()
    )


def count_stuck_jobs(connection: Connection) -> int:
    """Count the jobs whose lease ran out over a minute ago and that nobody takes back."""
    overdue = func.clock_timestamp() - timedelta(minutes=1)
    return int(
        connection.execute(
            select(func.count())
            .select_from(Job)
            .where(
                Job.run_id == func.any(runs_with_running_jobs(connection)),
                Job.state == JobState.RUNNING,
                Job.lease_until < overdue,
            )
        ).scalar_one()
    )


def redis_facts(redis_url: str) -> RedisFacts:
    """Version and durability settings, and whether a write succeeds.

    Raises:
        ServiceUnavailableError: When Redis cannot be reached.
    """
    client = redis.Redis.from_url(
        redis_url,
        socket_timeout=_TIMEOUT_S,
        socket_connect_timeout=_TIMEOUT_S,
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
    """Try a small write; the error as text, as on a replica or a full disk, else an empty text."""
    try:
        client.set(_PROBE, "1", ex=10)
        client.delete(_PROBE)
    except redis.ResponseError as error:
        return f"{error}"
    return ""


def _foreign_keys(client: redis.Redis) -> Iterator[str]:
    for name in client.scan_iter(count=1000):
        expected = _type_of_key(name)
        # It may be gone by now: queues come and go.
        if expected and client.type(name) not in (expected, "none"):
            yield name


def _type_of_key(name: str) -> str | None:
    """The type of the key that kombu keeps under a name; None if the name is not one of ours."""
    if name.startswith("_kombu.binding."):
        return "set"
    if name in _KOMBU_KEYS:
        return _KOMBU_KEYS[name]
    return "list" if name.partition(".")[0] in _STAGES else None


def disk_room(folder: Path) -> DiskRoom:
    """Free space of the file system that a folder lies on.

    The statistics of a file system show neither quotas nor damage, so a few bytes are written and
    removed too, if this process may.
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
    own = connection.execute(_DATA_DIRECTORY).scalar()
    addresses = list(connection.scalars(select(TokenSet.address).distinct()))
    named = [own, *addresses] if own else addresses
    folders = (Path(str(name).removeprefix("file://")) for name in named)
    return [folder for folder in folders if folder.is_absolute() and folder.exists()]


_SERVER_VERSION = text("SHOW server_version")

# Says whether new transactions can only read.
_IS_READ_ONLY = text("SELECT current_setting('transaction_read_only')::bool")

# Names Postgres' own folder, if this role may know it.
_DATA_DIRECTORY = text("""
    SELECT CASE WHEN pg_has_role('pg_read_all_settings', 'USAGE')
        THEN current_setting('data_directory') END
""")
