"""`nightshift doctor`: is everything well?"""

from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nightshift.cli.echo import echo, echo_json
from nightshift.cli.options import data_dir_option, json_option, read_settings

if TYPE_CHECKING:
    from nightshift.schema.findings import Finding
    from nightshift.schema.settings import Settings
    from nightshift.stores.index.milvus import VectorStore
    from nightshift.stores.postgres.database import Database

__all__ = ["doctor"]

_MARKS = {"ok": "✓", "warning": "!", "error": "✗"}


@click.command()
@click.option(
    "--repair",
    "mend",
    is_flag=True,
    help="Mend indexes and runs first: torn, lost, doubled and orphaned vectors, missing results.",
)
@click.option(
    "--drop-load",
    "dropped",
    type=int,
    multiple=True,
    metavar="N",
    help="Delete what was computed with load N of a model, whose files changed under it, first.",
)
@data_dir_option
@json_option
def doctor(mend: bool, dropped: tuple[int, ...], data_dir: Path | None, as_json: bool) -> None:
    """Check services, migrations, disk, ledger, indexes, runs, GPUs and models.

    Models are those of unfinished runs and of indexes that searches use: whether a worker on this
    machine could load them as they were planned, and what works with them. No weights are loaded
    and nothing is downloaded.

    Changes nothing without --repair or --drop-load. Exits with 1 where something is wrong.

    \b
    Examples:
      nightshift doctor
      nightshift doctor --json
      nightshift doctor --repair
      nightshift doctor --drop-load 12 --repair
    """
    from nightshift.results.doctor import examine
    from nightshift.stack import resolve_urls
    from nightshift.stores.index.milvus import VectorStore
    from nightshift.stores.postgres.database import Database

    settings = read_settings(data_dir)
    urls = resolve_urls(settings, running=False)
    found = []
    with (
        Database(urls.database_url) as database,
        VectorStore(urls.milvus_uri, urls.milvus_token, patience_s=5.0) as vectors,
    ):
        findings = chain(
            _drop(database, dropped),
            _repair(database, vectors) if mend else (),
            _parts(settings),
            examine(database, vectors, urls.redis_url, settings.data_dir),
            _models(database),
        )
        for finding in findings:
            found.append(finding)
            if not as_json:
                echo(f"{_MARKS[finding.level]} {finding.check:<9} {finding.message}")
    if as_json:
        echo_json([asdict(finding) for finding in found], indent=None)
    if any(finding.level == "error" for finding in found):
        raise SystemExit(1)


def _drop(database: "Database", load_ids: tuple[int, ...]) -> "Iterator[Finding]":
    """What was deleted of loads in doubt."""
    from nightshift.producers.repair import drop_loads
    from nightshift.schema.findings import Finding

    for done in drop_loads(database, load_ids):
        yield Finding(check="loads", level="ok", message=done)


def _repair(database: "Database", vectors: "VectorStore") -> "Iterator[Finding]":
    """What was mended; what could not be is an error, and everything is looked at all the same."""
    from nightshift.producers.repair import repair
    from nightshift.schema.errors import NightshiftError
    from nightshift.schema.findings import Finding

    try:
        for done in repair(database, vectors):
            yield Finding(check="repair", level="ok", message=done)
    except NightshiftError as error:
        yield Finding(check="repair", level="error", message=str(error))


def _parts(settings: "Settings") -> "Iterator[Finding]":
    """Parts of the embedded stack that died or fell silent, where it is in use."""
    from nightshift.cli.embedded_stack import open_stack
    from nightshift.schema.findings import Finding

    if settings.database_url and settings.redis_url and settings.milvus_uri:
        return
    for part in open_stack(settings.data_dir).status().parts:
        if part.state == "died":
            message = f"{part.name} died: its log is {part.log}; `nightshift up` starts it again"
            yield Finding(check="stack", level="error", message=message)
        elif part.state == "silent":
            message = f"{part.name} runs but does not answer: its log is {part.log}"
            yield Finding(check="stack", level="error", message=message)


def _models(database: "Database") -> "Iterator[Finding]":
    from nightshift.models.preflight.doctor import examine_devices, examine_models
    from nightshift.schema.errors import NightshiftError, ServiceUnavailableError
    from nightshift.schema.findings import Finding, skipped
    from nightshift.stores.models import models_in_use

    yield from examine_devices()
    try:
        with database.begin() as connection:
            wanted = models_in_use(connection)
    except ServiceUnavailableError:
        yield skipped("model", "postgres")
    except NightshiftError as error:
        yield Finding(check="model", level="error", message=str(error))
    else:
        yield from examine_models(wanted)
