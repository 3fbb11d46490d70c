"""`nightshift score prune`: delete scores that no run uses."""

from pathlib import Path

import click

from nightshift.cli.echo import echo_json
from nightshift.cli.options import data_dir_option, json_option, read_settings

__all__ = ["score"]


@click.group()
def score() -> None:
    """Manage the scores that runs share."""


@score.command()
@click.option("--dry-run", is_flag=True, help="Say what would go, and do nothing.")
@data_dir_option
@json_option
def prune(dry_run: bool, data_dir: Path | None, as_json: bool) -> None:
    """Delete scores that no run uses, such as those of deleted runs and of changed items.

    A later run that meets such a pair scores it again. The scores that stay are copied into a new
    partition, so there must be room for them. Scorers of runs that have not ended are left alone.

    \b
    Examples:
      nightshift score prune --dry-run
      nightshift score prune
    """
    from nightshift.api import connect
    from nightshift.cli.prune_text import print_pruned_scores, prune_progress, report_json

    with (
        connect(settings=read_settings(data_dir)) as nightshift,
        prune_progress("partitions examined", quiet=as_json) as progress,
    ):
        report = nightshift.prune_scores(dry_run=dry_run, progress=progress)
    if as_json:
        echo_json(report_json(report, dry_run=dry_run), indent=None)
    else:
        print_pruned_scores(report, dry_run=dry_run)
