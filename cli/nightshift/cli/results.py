"""`nightshift results`: the rankings of a run as a table or a file."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from nightshift.cli.echo import echo
from nightshift.cli.options import data_dir_option, read_settings
from nightshift.schema.display import visible
from nightshift.schema.errors import ConflictError

if TYPE_CHECKING:
    from rich.table import Table

    from nightshift.api import Nightshift
    from nightshift.results.coverage import Coverage
    from nightshift.results.rankings import RankedList
    from nightshift.stores.ledger.run_types import RerankRun
    from nightshift.stores.postgres.database import Database
    from nightshift.stores.results.rankings import RankedItem

__all__ = ["results"]

_TABLE_ROWS = 40


@click.command(short_help="Print or export the rankings of a run.")
@click.argument("run_id", metavar="RUN", type=int)
@click.option("--query", help="Only this query, by its id in the file of queries.")
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["table", "jsonl", "csv", "parquet", "trec"]),
    default="table",
    show_default=True,
    help="table is for reading, the others are for programs.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="Maximum number of rows.  [default: 40 in a table of all queries, else all]",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write; it appears only when it is complete.  [default: standard output]",
)
@data_dir_option
def results(
    run_id: int,
    query: str | None,
    file_format: str,
    limit: int | None,
    output: Path | None,
    data_dir: Path | None,
) -> None:
    """Print or export the rankings of RUN, in the order of its queries, best item first.

    Every row has the rank of the coarse search, the scores (margin, probability, entropy,
    enhancement), the number of tied items, and the rule that decided the rank.

    TREC lines have 1/rank as their score, so that tools which sort by score keep this order.

    \b
    Examples:
      nightshift results 7
      nightshift results 7 --query q12
      nightshift results 7 --format parquet --output run7.parquet
      nightshift results 7 --format trec | trec_eval qrels.txt -

    Prints the coverage to standard error, such as "12 of 40 queries have a ranking; the run was
    cancelled". Exits with 1 if the run failed or was cancelled before all queries were ranked, with
    7 if it is done and some queries failed, with 4 if there is nothing to export.
    """
    from nightshift.api import connect
    from nightshift.cli.coverage import exit_unless_covered, warn_unless_covered

    with connect(settings=read_settings(data_dir)) as nightshift:
        coverage = nightshift.coverage(run_id)
        if file_format != "table":
            coverage.require_rankings()
        with _destination(output) as stream:
            if file_format == "table":
                shown = _print_tables(nightshift.database, run_id, query, limit, stream)
            else:
                shown = _export(nightshift, coverage, query, limit, file_format, stream)
        warn_unless_covered(coverage)
    if query is None or not shown:
        exit_unless_covered(coverage)


def _export(
    nightshift: "Nightshift",
    coverage: "Coverage",
    query: str | None,
    limit: int | None,
    file_format: str,
    stream: IO[bytes],
) -> int:
    from nightshift.results.export import export

    run_id = coverage.run_id
    if file_format == "parquet" and stream.isatty():
        raise click.UsageError(
            "Parquet is binary and not for a terminal: add --output FILE, or pipe it to a program"
        )
    rankings = nightshift.results(run_id, query=query, limit=limit)
    written = export(rankings, file_format, stream)
    if not written:
        raise ConflictError(f"query {query!r} has no ranking in run {run_id}: {coverage}")
    if stream is not sys.stdout.buffer:
        echo(f"{written:,} rows of run {run_id} written", err=True)
    return written


def _print_tables(
    database: "Database", run_id: int, query: str | None, limit: int | None, stream: IO[bytes]
) -> int:
    from nightshift.cli.console import make_console
    from nightshift.results.rankings import open_rankings, ranked_list

    if query is None:
        with open_rankings(database, run_id, limit=limit or _TABLE_ROWS) as (run, streamed):
            rows = tuple(streamed)
            table, notes = _run_table(rows, run, limit or _TABLE_ROWS)
    else:
        run, ranking = ranked_list(database, run_id, query, limit=limit)
        rows = ranking.rows
        table, notes = _query_table(ranking, run)
    console = make_console(terminal=stream.isatty())
    with console.capture() as captured:
        console.print(table)
        for note in notes:
            console.print(note, style="dim")
    stream.write(captured.get().encode())
    return len(rows)


def _run_table(
    rows: "Sequence[RankedItem]", run: "RerankRun", limit: int
) -> "tuple[Table, list[str]]":
    from nightshift.cli.console import make_table

    table = make_table("query", "item", *_COLUMNS, right=_RIGHT, title=_title(run))
    for place, row in enumerate(rows):
        ends = place + 1 == len(rows) or rows[place + 1].query != row.query
        query = row.query if row.final_rank == 1 else ""
        table.add_row(query, row.item, *_cells(row), end_section=ends)
    notes = [_LEGEND]
    if len(rows) == limit:
        notes.append("More rows: --limit N; one query with its texts: --query ID; files: --format.")
    return table, notes


def _query_table(ranking: "RankedList", run: "RerankRun") -> "tuple[Table, list[str]]":
    from nightshift.cli.console import make_table
    from nightshift.results.captions import caption, shorten

    query_id = shorten(ranking.query.external_id, 100)
    title = f"Query {query_id}: {caption(ranking.query.parts, 300)}"
    table = make_table("item", "content", *_COLUMNS, right=_RIGHT, title=title)
    for row in ranking.rows:
        content = (
            caption(ranking.items[row.item_id].parts, 60) if row.item_id in ranking.items else ""
        )
        table.add_row(row.item, content, *_cells(row))
    if not ranking.rows:
        return table, [
            f"Run {run.id} has no ranking of this query: `nightshift run failures {run.id}`."
        ]
    scorer = (
        f"{_title(run)}; scorer {run.scorer}, fingerprint {ranking.rows[0].scorer_fingerprint}."
    )
    return table, [scorer, _LEGEND]


_COLUMNS = (
    "rank", "coarse", "cosine", "margin", "p", "entropy", "fired", "tie", "decided", "relevant",
)  # fmt: skip
_RIGHT = "rank coarse cosine margin p entropy fired relevant"
_LEGEND = (
    "rank: final rank; coarse: rank before; margin: log-odds; p: logistic of the margin; entropy: "
    "in nats; fired: layer of the visual enhancement; tie: group (size); decided: by which rule."
)


def _cells(row: "RankedItem") -> tuple[str, ...]:
    from nightshift.cli.formats import format_number

    tied = row.tie_group is not None and (row.tie_size or 0) > 1
    return (
        str(row.final_rank),
        str(row.coarse_rank),
        format_number(row.coarse_score),
        format_number(row.margin, 2),
        format_number(row.probability),
        format_number(row.entropy),
        ("yes" if row.fired_layer is None else str(row.fired_layer)) if row.fired else "",
        f"{row.tie_group} ({row.tie_size})" if tied else "",
        row.decided_by.value,
        "" if row.relevance is None else str(row.relevance),
    )


def _title(run: "RerankRun") -> str:
    return visible(f"Run {run.id}: {run.query_set} over {run.catalog}")


@contextmanager
def _destination(output: Path | None) -> Iterator[IO[bytes]]:
    """Standard output, or a file that gets its name only when it is complete."""
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = output.with_name(f".{output.name}.part")
    try:
        stream = part.open("wb")
    except OSError as error:
        raise click.FileError(str(output), hint=error.strerror) from error
    try:
        with stream:
            yield stream
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)
