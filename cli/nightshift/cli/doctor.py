"""`nightshift doctor`: checks of services, data and models, and repairs."""

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
    "repair_first",
    is_flag=True,
    help="First repair indexes and runs: damaged collections; lost, duplicate and orphaned "
    "vectors; missing results.",
)
@click.option(
    "--drop-load",
    "dropped_loads",
    type=int,
    multiple=True,
    metavar="N",
    help="First delete the results of load N of a model, whose files changed while it was in use.",
)
@data_dir_option
@json_option
def doctor(
    repair_first: bool, dropped_loads: tuple[int, ...], data_dir: Path | None, as_json: bool
) -> None:
    """Check services, migrations, disk, ledger, indexes, runs, GPUs and models.

    The models are those of unfinished runs and of indexes in use. The check finds out if a worker
    on this machine could load them as planned, and which features work. It loads no weights and
    downloads nothing.

    Changes nothing without --repair or --drop-load. Exits with 1 if a check finds an error.

    \b
    Examples:
      nightshift doctor
      nightshift doctor --json
      nightshift doctor --repair
      nightshift doctor --drop-load 12 --repair
    """
    from nightshift.api.model_checks import check_models
    from nightshift.results.doctor import examine
    from nightshift.stack import resolve_urls
    from nightshift.stores.index.milvus import VectorStore
    from nightshift.stores.postgres.database import Database

    settings = read_settings(data_dir)
    urls = resolve_urls(settings, running=False)
    findings = []
    with (
        Database(urls.database_url) as database,
        VectorStore(urls.milvus_uri, urls.milvus_token, patience_s=5.0) as vectors,
    ):
        checks = chain(
            _drop(database, dropped_loads),
            _repair(database, vectors) if repair_first else (),
            _parts(settings),
            examine(database, vectors, urls.redis_url, settings.data_dir),
            check_models(database),
        )
        for finding in checks:
            findings.append(finding)
            if not as_json:
                echo(f"{_MARKS[finding.level]} {finding.check:<9} {finding.message}")
    if as_json:
        echo_json([asdict(finding) for finding in findings], indent=None)
    if any(finding.level == "error" for finding in findings):
        raise SystemExit(1)


def _drop(database: "Database", load_ids: tuple[int, ...]) -> "Iterator[Finding]":
    """Delete the results of doubtful model loads."""
    from nightshift.producers.repair import drop_loads
    from nightshift.schema.findings import Finding

    for message in drop_loads(database, load_ids):
        yield Finding(check="loads", level="ok", message=message)


def _repair(database: "Database", vectors: "VectorStore") -> "Iterator[Finding]":
    """Repair indexes and runs; a failed repair is an error, and the checks go on."""
    from nightshift.producers.repair import repair
    from nightshift.schema.errors import NightshiftError
    from nightshift.schema.findings import Finding

    try:
        for message in repair(database, vectors):
            yield Finding(check="repair", level="ok", message=message)
    except NightshiftError as error:
        yield Finding(check="repair", level="error", message=str(error))


def _parts(settings: "Settings") -> "Iterator[Finding]":
    """Find parts of the embedded stack that died or do not answer, if it is in use."""
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
