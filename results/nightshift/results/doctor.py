"""Is everything well? One finding a check, each with what to do about it."""

import platform
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from tempfile import gettempdir

from nightshift.migrations import current_revision, head_revision
from nightshift.results.verify import verify
from nightshift.schema.distribution import installed_version
from nightshift.schema.errors import NightshiftError, NotFoundError, ServiceUnavailableError
from nightshift.schema.findings import Finding, Level
from nightshift.schema.states import RunState
from nightshift.stores import health
from nightshift.stores.foreign_errors import translated_foreign
from nightshift.stores.index import indexes, reconcile
from nightshift.stores.index.indexes import IndexRow
from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.ledger import runs, workers
from nightshift.stores.postgres.database import Database
from nightshift.stores.results import model_loads

__all__ = ["examine", "not_looked_at"]

#: Below this a night of a large catalogue may not fit.
_LOW_DISK_GIB = 5.0
#: Below this nothing works: Postgres and Redis stop taking writes.
_NO_DISK_GIB = 0.1
_PACKAGES = ("celery", "sqlalchemy", "pymilvus", "torch", "transformers")
#: The last runs whose books are counted.
_RUNS = 5


def examine(
    database: Database, vectors: VectorStore, redis_url: str, data_dir: Path
) -> Iterator[Finding]:
    """Look at the services, the ledger, the indexes and the last runs; changes nothing.

    A check that cannot be made is an error of its own, and the others go on. What lies in Postgres
    is not looked at while Postgres is away.
    """
    away: set[str] = set()
    checks: tuple[tuple[str, frozenset[str], Callable[[], Iterator[Finding]]], ...] = (
        ("versions", frozenset(), _versions),
        ("postgres", frozenset(), lambda: _postgres(database)),
        ("redis", frozenset(), lambda: _redis(redis_url)),
        ("milvus", frozenset(), lambda: _milvus(database, vectors, ledger="postgres" not in away)),
        ("disk", frozenset(), lambda: _disk(database, data_dir, ledger="postgres" not in away)),
        ("ledger", frozenset({"postgres"}), lambda: _ledger(database)),
        ("runs", frozenset({"postgres"}), lambda: _runs(database)),
        ("loads", frozenset({"postgres"}), lambda: _loads(database)),
    )
    for name, needed, check in checks:
        if away & needed:
            yield not_looked_at(name, *away & needed)
            continue
        try:
            yield from check()
        except ServiceUnavailableError as error:
            away.add(error.service)
            yield Finding(check=name, level="error", message=str(error))
        except NightshiftError as error:
            yield Finding(check=name, level="error", message=str(error))
        except Exception as error:  # noqa: BLE001 - the other checks go on
            message = str(translated_foreign(error) or f"unexpected {type(error).__name__}")
            yield Finding(check=name, level="error", message=f"could not be checked: {message}")


def not_looked_at(check: str, *services: str) -> Finding:
    """In place of a check that needs services which are away; they have an error of their own."""
    names = " and ".join(sorted(services))
    return Finding(check=check, level="warning", message=f"not looked at without {names}")


def _versions() -> Iterator[Finding]:
    others = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    message = f"nightshift {installed_version()}, {others}, Python {platform.python_version()}"
    yield Finding(check="versions", level="ok", message=message)


def _postgres(database: Database) -> Iterator[Finding]:
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


def _redis(redis_url: str) -> Iterator[Finding]:
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
            message="keeps nothing on disk; the ledger rings again what a restart loses, but "
            "appendonly yes saves that time",
        )
    if not (facts.refuses or facts.foreign_keys):
        yield Finding(check="redis", level="ok", message=facts.version)


def _milvus(database: Database, vectors: VectorStore, *, ledger: bool) -> Iterator[Finding]:
    if not ledger:
        yield Finding(check="milvus", level="ok", message=vectors.version)
        yield not_looked_at("indexes", "postgres")
        return
    release = vectors.version
    with database.begin() as connection:
        ready = indexes.ready_indexes(connection)
    yield Finding(check="milvus", level="ok", message=f"{release}, {len(ready)} ready indexes")
    for index in ready:
        try:
            yield from _index(database, vectors, index)
        except NotFoundError:
            yield Finding(
                check="milvus",
                level="error",
                message=f"{index.collection} is gone; the next `nightshift rerank` over it, or "
                "`nightshift doctor --repair`, makes it again and embeds its items",
            )
        except ServiceUnavailableError:
            raise
        except NightshiftError as error:
            remedy = (
                "; `nightshift down`, then `up`, sets damaged files aside"
                if vectors.is_lite
                else ""
            )
            yield Finding(check="milvus", level="error", message=f"{error}{remedy}")


def _index(database: Database, vectors: VectorStore, index: IndexRow) -> Iterator[Finding]:
    collection = index.collection
    if (width := vectors.dim(collection)) != index.dim:
        yield Finding(
            check="milvus",
            level="error",
            message=f"{collection} holds vectors of {width} numbers, not {index.dim}: "
            "`nightshift doctor --repair` replaces it and embeds its items",
        )
        return
    if index.alias not in vectors.aliases(collection):
        yield Finding(
            check="milvus",
            level="warning",
            message=f"{collection} has lost its alias {index.alias}, which other programs may use: "
            "`nightshift doctor --repair` sets it",
        )
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


def _disk(database: Database, data_dir: Path, *, ledger: bool) -> Iterator[Finding]:
    scratch = Path(gettempdir())
    folders = [data_dir]
    if ledger:
        with database.begin() as connection:
            folders += health.folders_in_use(connection)
    seen = set()
    for folder in (*folders, scratch):
        if not folder.exists():
            continue
        room = health.disk_room(folder)
        if room.device in seen:
            continue
        seen.add(room.device)
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


def _loads(database: Database) -> Iterator[Finding]:
    with database.begin() as connection:
        suspect = model_loads.suspect_loads(connection)
    for load in suspect:
        yield Finding(
            check="loads",
            level="warning",
            message=f"{load.changed_file} changed while {load.worker_id} had {load.spec} in "
            f"memory. {load.kept.text()} of this load were kept before, each after a look at its "
            f"files; if you doubt them, `nightshift doctor --drop-load {load.id}` deletes them",
        )
