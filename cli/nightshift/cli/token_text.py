"""Text about visual tokens: the estimated size of each codec, and deleted shards."""

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
    """Print the estimated size of the tokens for each codec."""
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
    for projection in projections:
        table.add_row(
            projection.codec,
            f"{projection.bytes_per_image:,.0f}",
            f"{projection.bytes:,}",
            f"{projection.bytes_to_add:,}",
            f"{projection.times_smaller:.1f} ×",
        )
    make_console().print(table)
    echo("sizes in bytes, estimated from a sample of the images")


@contextmanager
def prune_progress(*, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on stderr that counts deleted files; yields a function of (done, total)."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    hidden = quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bars:
        bar = bars.add_task("files deleted", total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)


def print_pruned(report: PruneReport, *, dry_run: bool) -> None:
    """Print the deleted shards, and the sets that were skipped with the reason."""
    table = make_table(
        "set", "catalogue", "codec", "shards", "images", "bytes", "left over", "store",
        right="set shards images bytes",
    )  # fmt: skip
    for token_set in report.sets:
        leftovers = f"{token_set.leftovers:,} files, {token_set.leftover_bytes:,} bytes"
        table.add_row(
            str(token_set.id),
            token_set.catalog,
            token_set.codec,
            f"{token_set.shards:,}",
            f"{token_set.images:,}",
            f"{token_set.bytes:,}",
            leftovers if token_set.leftovers else "",
            token_set.address,
        )
    if report.sets:
        make_console().print(table)
    for line in report.skipped:
        echo(f"skipped: {line}", err=True)
    would = "would be" if dry_run else "were"
    echo(f"tokens of {report.images:,} images, {report.bytes:,} bytes, {would} deleted")
