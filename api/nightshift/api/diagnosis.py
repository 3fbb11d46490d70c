"""Checks of services, data and models, and repairs; they work while services are away."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from nightshift.schema.errors import ConfigurationError, NightshiftError
from nightshift.schema.findings import Finding
from nightshift.schema.settings import Settings, read_settings

if TYPE_CHECKING:
    from nightshift.stores.index.milvus import VectorStore
    from nightshift.stores.postgres.database import Database

__all__ = ["doctor"]


def doctor(
    data_dir: Path | str | None = None,
    *,
    settings: Settings | None = None,
    repair: bool = False,
    drop_loads: Sequence[int] = (),
    deep: bool = False,
) -> Iterator[Finding]:
    """Check services, migrations, disk, ledger, indexes, runs, GPUs and models.

    It needs no connection, because it also says why there is none. A check runs when its finding
    is read, so read them all. Without `repair` and `drop_loads` nothing changes.

    Args:
        data_dir: Home of the embedded stack, as for `connect`.
        settings: All settings, in place of `data_dir`.
        repair: First repair indexes and runs.
        drop_loads: First delete the results of these loads of a model.
        deep: Read all keys of the indexes, also of ranges that were verified before.

    Example:
        >>> [(row.check, row.message) for row in api.doctor() if row.level == "error"]
        [('redis', 'Redis does not answer: …')]

    Raises:
        ConfigurationError: `data_dir` and `settings` are both given, a setting is malformed, or no
            services are configured and no embedded stack was ever started there.
        NotFoundError: There is no such load.
        ConflictError: The results of a load may not be deleted.
        ServiceUnavailableError: A load is to be dropped, and Postgres cannot be reached.
    """
    if settings is None:
        settings = read_settings(None if data_dir is None else Path(data_dir).expanduser())
    elif data_dir is not None:
        raise ConfigurationError("doctor takes data_dir or settings, not both")
    return _findings(settings, repair_first=repair, load_ids=tuple(drop_loads), deep=deep)


def _findings(
    settings: Settings, *, repair_first: bool, load_ids: tuple[int, ...], deep: bool
) -> Iterator[Finding]:
    from nightshift.api.model_checks import check_models
    from nightshift.results.doctor import examine
    from nightshift.stack import resolve_urls
    from nightshift.stores.index.milvus import VectorStore
    from nightshift.stores.postgres.database import Database

    urls = resolve_urls(settings, running=False)
    with (
        Database(urls.database_url) as database,
        VectorStore(urls.milvus_uri, urls.milvus_token, patience_s=5.0) as vectors,
    ):
        yield from chain(
            _drop(database, load_ids),
            _repair(database, vectors) if repair_first else (),
            _parts(settings),
            examine(database, vectors, urls.redis_url, settings.data_dir, deep=deep),
            check_models(database),
        )


def _drop(database: "Database", load_ids: tuple[int, ...]) -> Iterator[Finding]:
    """Delete the results of doubtful model loads."""
    from nightshift.producers.repair import drop_loads

    for message in drop_loads(database, load_ids):
        yield Finding(check="loads", level="ok", message=message)


def _repair(database: "Database", vectors: "VectorStore") -> Iterator[Finding]:
    """Repair indexes and runs; a failed repair is an error, and the checks go on."""
    from nightshift.producers.repair import repair

    try:
        for message in repair(database, vectors):
            yield Finding(check="repair", level="ok", message=message)
    except NightshiftError as error:
        yield Finding(check="repair", level="error", message=str(error))


def _parts(settings: Settings) -> Iterator[Finding]:
    """Find parts of the embedded stack that died or do not answer, if it is in use."""
    from nightshift.stack import Stack

    if settings.database_url and settings.redis_url and settings.milvus_uri:
        return
    for part in Stack(settings.data_dir).status().parts:
        if part.state == "died":
            message = f"{part.name} died: its log is {part.log}; `nightshift up` starts it again"
            yield Finding(check="stack", level="error", message=message)
        elif part.state == "silent":
            message = f"{part.name} runs but does not answer: its log is {part.log}"
            yield Finding(check="stack", level="error", message=message)
