"""Visual tokens as text for people: what they would take, and what went."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from nightshift.cli.console import make_console, make_table
from nightshift.cli.echo import echo, echo_json
from nightshift.producers.estimate_tokens import Projection
from nightshift.stores.tokens.token_pruning import PruneReport

__all__ = ["print_pruned", "prune_progress", "show_plan"]


def show_plan(projections: Sequence[Projection], *, as_json: bool) -> None:
    """What each codec would take."""
    if as_json:
        echo_json(list(projections))
        return
    table = make_table(
        "codec",
        "an image",
        "catalogue",
        "to add",
        "smaller",
        right="an image catalogue smaller to add",
    )
    for one in projections:
        table.add_row(
            one.codec,
            f"{one.bytes_per_image:,.0f}",
            f"{one.bytes:,}",
            f"{one.bytes_to_add:,}",
            f"{one.times_smaller:.1f} ×",
        )
    make_console().print(table)
    echo("bytes, judged by a sample of the images")


@contextmanager
def prune_progress(*, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr that counts deleted files; what it yields takes how many, and of how many."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    hidden = quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bars:
        bar = bars.add_task("files deleted", total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)


def print_pruned(report: PruneReport, *, dry_run: bool) -> None:
    """What went, and what was left alone and why."""
    table = make_table(
        "set", "catalogue", "codec", "shards", "images", "bytes", "left over", "store",
        right="set shards images bytes",
    )  # fmt: skip
    for one in report.sets:
        table.add_row(
            str(one.id),
            one.catalog,
            one.codec,
            f"{one.shards:,}",
            f"{one.images:,}",
            f"{one.bytes:,}",
            f"{one.leftovers:,} files, {one.leftover_bytes:,} bytes" if one.leftovers else "",
            one.address,
        )
    if report.sets:
        make_console().print(table)
    for line in report.skipped:
        echo(f"left alone: {line}", err=True)
    would = "would be" if dry_run else "were"
    echo(f"tokens of {report.images:,} images, {report.bytes:,} bytes, {would} deleted")
