"""The progress and the summary of a catalogue import, as text."""

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from nightshift.cli.echo import echo
from nightshift.cli.formats import format_reasons
from nightshift.producers.catalog_import import ImportLimits, ImportSummary
from nightshift.schema.display import visible
from nightshift.stores.catalog.import_failures import notices_of_import, reasons_of_import
from nightshift.stores.postgres.database import Database

__all__ = ["explain_import", "import_facts", "import_progress"]


@contextmanager
def import_progress(name: str, *, quiet: bool) -> Iterator[Callable[[ImportSummary], None]]:
    """Show a row counter on stderr; yields the function that updates it."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}  {task.completed:,} rows"),
        TextColumn("{task.fields[failed]:,} failed"),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    hidden = quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bars:
        bar = bars.add_task(escape(visible(name)), total=None, failed=0)
        yield lambda summary: bars.update(bar, completed=summary.read, failed=summary.failed)


def import_facts(summary: ImportSummary, limits: ImportLimits) -> dict[str, object]:
    """The keys of `catalog import --json`; those of pruning and refusal only where they apply.

    Args:
        summary: The result of the import.
        limits: The limits of the import.
    """
    facts: dict[str, object] = {
        "read": summary.read,
        "accepted": summary.accepted,
        "failed": summary.failed,
        "unchanged": summary.unchanged,
    }
    if summary.revision:
        facts["revision"] = summary.revision
    if summary.refused:
        facts |= {"not_applied": summary.not_applied, "refused": summary.refused}
    if limits.prune:
        facts |= {"gone": summary.gone, "pruned": not (summary.refused or summary.not_pruned)}
    if summary.left_out:
        facts |= {"left_out": summary.left_out, "left_out_names": list(summary.left_out_names)}
    if summary.message:
        facts["message"] = summary.message
    return facts


def explain_import(database: Database, name: str, summary: ImportSummary) -> None:
    """Print to stderr how many rows failed, the reasons, and the command that lists them."""
    with database.begin() as connection:
        reasons = reasons_of_import(connection, summary.import_id)
        notices = notices_of_import(connection, summary.import_id)
    for notice in notices:
        echo(notice, err=True)
    if summary.gone:
        echo(f"{summary.gone:,} items are gone from the source", err=True)
    if summary.failed:
        echo(
            f"{summary.failed:,} rows failed ({format_reasons(reasons)}): "
            f"`nightshift catalog failures {shlex.quote(name)}` lists them",
            err=True,
        )
