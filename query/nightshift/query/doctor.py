"""Is everything well? One finding a check, each with what to do about it."""

import platform
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

from nightshift.migrations import current_revision, head_revision
from nightshift.query.verify import verify
from nightshift.schema.distribution import installed_version
from nightshift.schema.errors import NightshiftError
from nightshift.schema.findings import Finding, Level
from nightshift.schema.states import RunState
from nightshift.stores import health, indexes, reconcile, runs, workers
from nightshift.stores.database import Database
from nightshift.stores.milvus import VectorStore

__all__ = ["examine"]

#: Below this a night of a large catalogue may not fit.
_LOW_DISK_GIB = 5.0
_PACKAGES = ("celery", "sqlalchemy", "pymilvus", "torch", "transformers")
#: The last runs whose books are counted.
_RUNS = 5


def examine(
    database: Database, vectors: VectorStore, redis_url: str, data_dir: Path
) -> Iterator[Finding]:
    """Look at the services, the ledger, the indexes and the last runs; changes nothing.

    A check that cannot be made is an error of its own, and the others go on.
    """
    checks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("versions", _versions),
        ("postgres", lambda: _postgres(database)),
        ("redis", lambda: _redis(redis_url)),
        ("milvus", lambda: _indexes(database, vectors)),
        ("disk", lambda: _disk(data_dir)),
        ("ledger", lambda: _ledger(database)),
        ("runs", lambda: _runs(database)),
    )
    for name, check in checks:
        try:
            yield from check()
        except NightshiftError as error:
            yield Finding(check=name, level="error", message=str(error))


def _versions() -> Iterator[Finding]:
    others = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    message = f"nightshift {installed_version()}, {others}, Python {platform.python_version()}"
    yield Finding(check="versions", level="ok", message=message)


def _postgres(database: Database) -> Iterator[Finding]:
    with database.begin() as connection:
        server = health.postgres_version(connection)
        revision = current_revision(connection)
    if revision != head_revision():
        yield Finding(
            check="postgres",
            level="error",
            message=f"at revision {revision}, this program needs {head_revision()}: "
            "`nightshift db upgrade`",
        )
    else:
        yield Finding(check="postgres", level="ok", message=f"{server}, revision {revision}")


def _redis(redis_url: str) -> Iterator[Finding]:
    facts = health.redis_facts(redis_url)
    if facts.eviction != "noeviction":
        yield Finding(
            check="redis",
            level="warning",
            message=f"evicts by {facts.eviction} when it is full: set maxmemory-policy noeviction",
        )
    if not facts.append_only:
        yield Finding(
            check="redis",
            level="warning",
            message="keeps nothing on disk; the ledger rings again what a restart loses, but "
            "appendonly yes saves that time",
        )
    yield Finding(check="redis", level="ok", message=facts.version)


def _indexes(database: Database, vectors: VectorStore) -> Iterator[Finding]:
    with database.begin() as connection:
        ready = indexes.ready_indexes(connection)
    yield Finding(
        check="milvus", level="ok", message=f"{vectors.version}, {len(ready)} ready indexes"
    )
    for index in ready:
        collection = index.collection
        pages = list(vectors.keys(collection))
        present = {key for page in pages for key in page}
        n_twice = sum(map(len, pages)) - len(present)
        with database.begin() as connection:
            found = health.index_health(connection, index.id, present)
            n_without = len(reconcile.items_without_vector(connection, index))
        if found.missing:
            yield Finding(
                check="milvus",
                level="error",
                message=f"{collection} lacks {found.missing} live vectors; the next `nightshift "
                "rerank` over it, or `nightshift doctor --repair`, embeds them again",
            )
        if n_without:
            yield Finding(
                check="milvus",
                level="warning",
                message=f"{collection} has no vector of {n_without} live items and no reason for "
                "it: `nightshift index build`, or `nightshift doctor --repair`, embeds them",
            )
        if n_twice:
            yield Finding(
                check="milvus",
                level="warning",
                message=f"{collection} holds {n_twice} vectors twice since a crash of Milvus; the "
                "next `nightshift rerank` over it, or `nightshift doctor --repair`, merges them",
            )
        if found.orphans:
            yield Finding(
                check="milvus",
                level="ok",
                message=f"{collection} holds {found.orphans} vectors of items that changed or left",
            )


def _disk(data_dir: Path) -> Iterator[Finding]:
    if not data_dir.exists():
        return
    free = health.free_disk_gib(data_dir)
    level: Level = "warning" if free < _LOW_DISK_GIB else "ok"
    yield Finding(check="disk", level=level, message=f"{free:.0f} GiB free at {data_dir}")


def _ledger(database: Database) -> Iterator[Finding]:
    with database.begin() as connection:
        active = runs.active_runs(connection)
        alive = workers.count_alive(connection)
        elected = health.dispatcher_is_elected(connection)
        stuck = health.count_stuck_jobs(connection)
    waiting = bool(active)
    if not elected:
        yield Finding(
            check="ledger",
            level="error" if waiting else "warning",
            message="no dispatcher runs: `nightshift up` or `nightshift dispatcher`",
        )
    if not alive:
        yield Finding(
            check="ledger",
            level="error" if waiting else "warning",
            message="no worker is alive: `nightshift up` or `nightshift worker`",
        )
    if stuck:
        yield Finding(
            check="ledger",
            level="error",
            message=f"{stuck} jobs have lost their worker and nobody takes them back: see the "
            "dispatcher's log",
        )
    yield Finding(
        check="ledger",
        level="ok",
        message=f"{len(active)} runs under way, {alive} workers alive",
    )


def _runs(database: Database) -> Iterator[Finding]:
    with database.begin() as connection:
        done = [run for run in runs.list_runs(connection, _RUNS) if run.state is RunState.DONE]
    for run in done:
        if not verify(database, run.id).complete:
            yield Finding(
                check="runs",
                level="error",
                message=f"run {run.id} is done but its books do not balance: "
                f"`nightshift verify {run.id}`",
            )
    yield Finding(check="runs", level="ok", message=f"counted the books of {len(done)} runs")
