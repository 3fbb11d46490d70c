"""Text about what a pruning deletes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import Field, asdict
from typing import Any, ClassVar, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from nightshift.cli.console import make_console, make_table
from nightshift.cli.echo import echo
from nightshift.cli.formats import format_bytes
from nightshift.stores.catalog.revision_pruning import RevisionPruning
from nightshift.stores.index.index_pruning import IndexPruning
from nightshift.stores.ledger.run_pruning import RunPruning
from nightshift.stores.results.score_pruning import ScorePruning

__all__ = [
    "print_pruned_indexes",
    "print_pruned_revisions",
    "print_pruned_runs",
    "print_pruned_scores",
    "prune_progress",
    "report_json",
]


class _Report(Protocol):
    """The result of any pruning."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def bytes(self) -> int: ...


@contextmanager
def prune_progress(what: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on stderr while things are deleted; yields a function of (done, total)."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    hidden = quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bars:
        bar = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)


def report_json(report: _Report, *, dry_run: bool) -> dict[str, object]:
    """The fields of a report, with its total."""
    return {"dry_run": dry_run, "bytes": report.bytes, **asdict(report)}


def print_pruned_runs(report: RunPruning, *, dry_run: bool) -> None:
    """Print the runs that go, and the reasons why others stay."""
    table = make_table("run", "state", "what", "ended", "size", right="run size")
    for run in report.runs:
        what = f"{run.kind} of {run.catalog}"
        table.add_row(
            str(run.id),
            run.state,
            what if run.query_set is None else f"{what} for {run.query_set}",
            f"{run.finished_at.astimezone():%Y-%m-%d %H:%M:%S}",
            format_bytes(run.bytes),
        )
    if report.runs:
        make_console().print(table)
    _print_total(f"{len(report.runs):,} runs", report.bytes, report.skipped, dry_run=dry_run)


def print_pruned_indexes(report: IndexPruning, *, dry_run: bool) -> None:
    """Print the index versions that go, and the reasons why others stay."""
    table = make_table(
        "catalogue", "index", "version", "vectors", "size", "builds", "collection",
        right="version vectors size builds",
    )  # fmt: skip
    for index in report.indexes:
        table.add_row(
            index.catalog,
            index.index,
            str(index.version),
            f"{index.vectors:,}",
            format_bytes(index.bytes),
            f"{index.runs:,}",
            index.collection,
        )
    if report.indexes:
        make_console().print(table)
    what = f"{len(report.indexes):,} index versions"
    _print_total(what, report.bytes, report.skipped, dry_run=dry_run)


def print_pruned_revisions(report: RevisionPruning, *, dry_run: bool) -> None:
    """Print the revisions that go and those that stay."""
    would = "would be" if dry_run else "were"
    gone = ", ".join(map(str, report.revisions)) or "none"
    echo(
        f"revisions {gone} of {report.catalog} {would} deleted, with {report.versions:,} versions "
        f"of items and {report.contents:,} contents, {format_bytes(report.bytes)}; revisions "
        f"{', '.join(map(str, report.kept))} stay"
    )


def print_pruned_scores(report: ScorePruning, *, dry_run: bool) -> None:
    """Print by scorer and month the scores that go, and the reasons why others stay."""
    table = make_table("scorer", "month", "unused", "used", "size", right="unused used size")
    for scores in report.scores:
        table.add_row(
            scores.scorer,
            f"{scores.month:%Y-%m}",
            f"{scores.unused:,}",
            f"{scores.kept:,}",
            format_bytes(scores.bytes),
        )
    if report.scores:
        make_console().print(table)
    what = f"{sum(scores.unused for scores in report.scores):,} scores"
    _print_total(what, report.bytes, report.skipped, dry_run=dry_run)


def _print_total(what: str, size: int, skipped: Sequence[str], *, dry_run: bool) -> None:
    for line in skipped:
        echo(f"stays: {line}", err=True)
    would = "would be" if dry_run else "were"
    echo(f"{what}, {format_bytes(size)}, {would} deleted")
