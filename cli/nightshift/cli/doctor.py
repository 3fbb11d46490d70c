"""`nightshift doctor`: checks of services, data and models, and repairs."""

from dataclasses import asdict
from pathlib import Path

import click

from nightshift.cli.echo import echo, echo_json
from nightshift.cli.options import data_dir_option, json_option, read_settings

__all__ = ["doctor"]

_MARKS = {"ok": "✓", "warning": "!", "error": "✗"}


@click.command()
@click.option(
    "--repair",
    "repair_first",
    is_flag=True,
    help="First repair indexes and runs: damaged collections; lost, duplicate and stale "
    "vectors; missing results.",
)
@click.option(
    "--deep",
    is_flag=True,
    help="Read all keys of the indexes, also of ranges that were verified before.",
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
    repair_first: bool,
    deep: bool,
    dropped_loads: tuple[int, ...],
    data_dir: Path | None,
    as_json: bool,
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
      nightshift doctor --deep
      nightshift doctor --repair
      nightshift doctor --drop-load 12 --repair
    """
    from nightshift.api import doctor as diagnose

    findings = []
    for finding in diagnose(
        settings=read_settings(data_dir), repair=repair_first, drop_loads=dropped_loads, deep=deep
    ):
        findings.append(finding)
        if not as_json:
            echo(f"{_MARKS[finding.level]} {finding.check:<9} {finding.message}")
    if as_json:
        echo_json([asdict(finding) for finding in findings], indent=None)
    if any(finding.level == "error" for finding in findings):
        raise SystemExit(1)
