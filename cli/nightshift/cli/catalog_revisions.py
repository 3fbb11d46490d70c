"""`nightshift catalog history | diff | rollback | prune`."""

from pathlib import Path

import click

from nightshift.cli.echo import echo, echo_json
from nightshift.cli.options import data_dir_option, json_option, read_settings

__all__ = ["diff", "history", "prune", "rollback"]


@click.command()
@click.argument("name")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    help="Maximum number of revisions; 0 for all.",
)
@data_dir_option
@json_option
def history(name: str, limit: int, data_dir: Path | None, as_json: bool) -> None:
    """List the revisions of the catalogue NAME, the newest first.

    Each import that is applied makes a revision, and so does a rollback. A run reads the revision
    that was the newest when it was planned.

    \b
    Example:
      nightshift catalog history shop
    """
    from nightshift.api import connect
    from nightshift.cli.console import make_console, make_table

    with connect(settings=read_settings(data_dir)) as nightshift:
        rows = nightshift.catalog_history(name, limit=limit or None)
    if as_json:
        echo_json(rows)
        return
    counts = ("items", "added", "changed", "removed")
    table = make_table("revision", "made", *counts, "by", right=f"revision {' '.join(counts)}")
    for row in rows:
        origin = row.source or "–"
        if row.rolled_back_to is not None:
            origin = f"rollback to {row.rolled_back_to}"
        table.add_row(
            str(row.number),
            f"{row.created_at.astimezone():%Y-%m-%d %H:%M:%S}",
            *(f"{getattr(row, count):,}" for count in counts),
            origin,
        )
    make_console().print(table)


@click.command()
@click.argument("name")
@click.argument("older", type=click.IntRange(min=1))
@click.argument("newer", type=click.IntRange(min=1))
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="Maximum number of ids of each kind; 0 for all.",
)
@data_dir_option
@json_option
def diff(
    name: str, older: int, newer: int, limit: int, data_dir: Path | None, as_json: bool
) -> None:
    """Show what was added, changed and removed between two revisions of the catalogue NAME.

    An item is changed if its content or its metadata differs.

    \b
    Examples:
      nightshift catalog diff shop 3 4
      nightshift catalog diff shop 1 4 --limit 0 --json
    """
    from nightshift.api import connect
    from nightshift.schema.display import visible

    with connect(settings=read_settings(data_dir)) as nightshift:
        differences = nightshift.catalog_diff(name, older, newer, limit=limit or None)
    if as_json:
        echo_json(differences)
        return
    echo(f"{name}, revision {older} to {newer}:")
    for kind in ("added", "changed", "removed"):
        items = getattr(differences, kind)
        echo(f"{items.count:,} {kind}")
        for external_id in items.ids:
            echo(f"  {visible(external_id)}")
        if items.count > len(items.ids):
            echo(f"  … and {items.count - len(items.ids):,} more (--limit 0 lists all)")


@click.command()
@click.argument("name")
@click.argument("revision", type=click.IntRange(min=1))
@data_dir_option
@json_option
def rollback(name: str, revision: int, data_dir: Path | None, as_json: bool) -> None:
    """Give the catalogue NAME the state of an earlier REVISION, as a new revision.

    Nothing is lost: the revisions in between stay, and a later rollback may return to them. Runs
    go on with the revisions that they were planned with. Build the index before the next run.

    \b
    Example:
      nightshift catalog rollback shop 3
    """
    from nightshift.api import connect

    with connect(settings=read_settings(data_dir)) as nightshift:
        made = nightshift.roll_back_catalog(name, revision)
    if as_json:
        echo_json(made, indent=None)
        return
    echo(
        f"{name}: revision {made.number} has the state of revision {revision}: {made.items:,} "
        f"items, {made.added:,} added, {made.changed:,} changed, {made.removed:,} removed"
    )


@click.command()
@click.argument("name")
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    required=True,
    help="So many of the newest revisions stay.",
)
@click.option("--dry-run", is_flag=True, help="Say what would go, and do nothing.")
@data_dir_option
@json_option
def prune(name: str, keep: int, dry_run: bool, data_dir: Path | None, as_json: bool) -> None:
    """Delete old revisions of the catalogue NAME, and items and contents that only they had.

    Revisions that a run reads stay as long as the run, and those that a newer one replaced within
    the last hour. It cannot be rolled back to a deleted revision.

    \b
    Examples:
      nightshift catalog prune shop --keep 10 --dry-run
      nightshift catalog prune shop --keep 10
    """
    from nightshift.api import connect
    from nightshift.cli.prune_text import print_pruned_revisions, prune_progress, report_json

    with (
        connect(settings=read_settings(data_dir)) as nightshift,
        prune_progress("steps done", quiet=as_json) as progress,
    ):
        report = nightshift.prune_catalog(name, keep=keep, dry_run=dry_run, progress=progress)
    if as_json:
        echo_json(report_json(report, dry_run=dry_run), indent=None)
    else:
        print_pruned_revisions(report, dry_run=dry_run)
