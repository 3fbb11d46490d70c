"""The checks of `nightshift doctor`: one finding each, with what to do about it."""

import platform
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import gettempdir

from nightshift.results.doctor_indexes import check_milvus
from nightshift.results.doctor_ledger import check_ledger, check_model_loads, check_runs
from nightshift.results.doctor_services import check_postgres, check_redis
from nightshift.schema.distribution import installed_version
from nightshift.schema.errors import NightshiftError, ServiceUnavailableError
from nightshift.schema.findings import Finding, Level, skipped
from nightshift.stores import health
from nightshift.stores.foreign_errors import translated_foreign
from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.postgres.database import Database

__all__ = ["examine"]

#: Below this, the data of one large run may not fit.
_LOW_DISK_GIB = 5.0
#: Below this nothing works: Postgres and Redis stop taking writes.
_NO_DISK_GIB = 0.1
_PACKAGES = ("celery", "sqlalchemy", "pymilvus", "torch", "transformers")


def examine(
    database: Database,
    vectors: VectorStore,
    redis_url: str,
    data_dir: Path,
    *,
    deep: bool = False,
) -> Iterator[Finding]:
    """Check the services, the ledger, the indexes and the last runs; changes nothing.

    A check that fails itself is an error, and the others go on. Checks that need Postgres are
    skipped while it is unavailable.

    Args:
        database: Postgres.
        vectors: Milvus.
        redis_url: Redis.
        data_dir: Of the embedded stack and of blobs.
        deep: Read all keys of Milvus, whatever was verified before.
    """
    unavailable: set[str] = set()

    def ready_database() -> Database | None:
        return None if "postgres" in unavailable else database

    checks: tuple[tuple[str, frozenset[str], Callable[[], Iterator[Finding]]], ...] = (
        ("versions", frozenset(), _versions),
        ("postgres", frozenset(), lambda: check_postgres(database)),
        ("redis", frozenset(), lambda: check_redis(redis_url)),
        ("milvus", frozenset(), lambda: check_milvus(ready_database(), vectors, everything=deep)),
        ("disk", frozenset(), lambda: _disk(ready_database(), data_dir)),
        ("ledger", frozenset({"postgres"}), lambda: check_ledger(database)),
        ("runs", frozenset({"postgres"}), lambda: check_runs(database)),
        ("loads", frozenset({"postgres"}), lambda: check_model_loads(database)),
    )
    for name, needed, check in checks:
        if unavailable & needed:
            yield skipped(name, *unavailable & needed)
            continue
        try:
            yield from check()
        except ServiceUnavailableError as error:
            unavailable.add(error.service)
            yield Finding(check=name, level="error", message=str(error))
        except NightshiftError as error:
            yield Finding(check=name, level="error", message=str(error))
        except Exception as error:  # noqa: BLE001 - the other checks go on
            message = str(translated_foreign(error) or f"unexpected {type(error).__name__}")
            yield Finding(check=name, level="error", message=f"could not be checked: {message}")


def _versions() -> Iterator[Finding]:
    others = ", ".join(f"{name} {_package_version(name)}" for name in _PACKAGES)
    message = f"nightshift {installed_version()}, {others}, Python {platform.python_version()}"
    yield Finding(check="versions", level="ok", message=message)


def _package_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # the base installation runs without torch
        return "not installed"


def _disk(database: Database | None, data_dir: Path) -> Iterator[Finding]:
    scratch = Path(gettempdir())
    folders = [data_dir]
    if database is not None:
        with database.begin() as connection:
            folders += health.folders_in_use(connection)
    devices = set()
    for folder in (*folders, scratch):
        if not folder.exists():
            continue
        room = health.disk_room(folder)
        if room.device in devices:
            continue
        devices.add(room.device)
        yield _room(folder, room, grows=folder != scratch)


def _room(folder: Path, room: health.DiskRoom, *, grows: bool) -> Finding:
    level: Level = "ok"
    message = f"{room.free_gib:.1f} GiB free at {folder}"
    if room.refuses or room.no_files:
        level = "error"
        message += f", and no file can be written ({room.refuses or 'no inode is free'}): make room"
    elif grows and room.free_gib < _NO_DISK_GIB:
        level = "error"
        message += ": make room, or services stop taking writes"
    elif room.free_gib < (_LOW_DISK_GIB if grows else _NO_DISK_GIB):
        level = "warning"
    return Finding(check="disk", level=level, message=message)
