"""`nightshift doctor`: is everything well?"""

import json
from dataclasses import asdict
from pathlib import Path

import click

from nightshift.cli.options import data_dir_option, json_option, read_settings

__all__ = ["doctor"]

_MARKS = {"ok": "✓", "warning": "!", "error": "✗"}


@click.command()
@click.option(
    "--repair",
    "mend",
    is_flag=True,
    help="Mend indexes and runs first: torn, lost, doubled and orphaned vectors, missing results.",
)
@data_dir_option
@json_option
def doctor(mend: bool, data_dir: Path | None, as_json: bool) -> None:
    """Check services, migrations, disk, ledger, indexes and the last runs.

    Changes nothing without --repair. Exits with 1 where something is wrong.

    \b
    Examples:
      nightshift doctor
      nightshift doctor --json
      nightshift doctor --repair
    """
    from nightshift.producers.repair import repair
    from nightshift.query.doctor import Finding, examine
    from nightshift.stores.database import Database
    from nightshift.stores.embedded import resolve_urls
    from nightshift.stores.milvus import VectorStore

    settings = read_settings(data_dir)
    urls = resolve_urls(settings)
    found = []
    with (
        Database(urls.database_url) as database,
        VectorStore(urls.milvus_uri, urls.milvus_token, patience_s=5.0) as vectors,
    ):
        for done in repair(database, vectors) if mend else ():
            found.append(Finding(check="repair", level="ok", message=done))
            if not as_json:
                click.echo(f"{_MARKS['ok']} {'repair':<9} {done}")
        for finding in examine(database, vectors, urls.redis_url, settings.data_dir):
            found.append(finding)
            if not as_json:
                click.echo(f"{_MARKS[finding.level]} {finding.check:<9} {finding.message}")
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in found]))
    if any(finding.level == "error" for finding in found):
        raise SystemExit(1)
