"""`nightshift report`: an HTML page or a PNG image about a run."""

from pathlib import Path

import click

from nightshift.cli.options import data_dir_option, read_settings

__all__ = ["report"]


@click.command(short_help="Write a report on a run, with images.")
@click.argument("run_id", metavar="RUN", type=int)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The .html or .png file to write; it needs no other file.",
)
@click.option(
    "--queries",
    "n_queries",
    type=click.IntRange(min=1, max=100),
    default=6,
    show_default=True,
    help="Number of queries: one of each effect of fine scoring, the rest in proportion.",
)
@data_dir_option
def report(run_id: int, output: Path, n_queries: int, data_dir: Path | None) -> None:
    """Show a few queries of RUN with their coarse and fine rankings side by side.

    \b
    Examples:
      nightshift report 7 --output run7.html
      nightshift report 7 --output run7.png --queries 4

    Exits like `nightshift results`: 4 without any ranking, 1 or 7 if an ended run lacks rankings.
    """
    from nightshift.api import connect
    from nightshift.cli.coverage import exit_unless_covered, warn_unless_covered
    from nightshift.cli.echo import echo

    with connect(settings=read_settings(data_dir)) as nightshift:
        nightshift.report(run_id, output, n_queries=n_queries)
        coverage = nightshift.coverage(run_id)
    echo(f"wrote {output}", err=True)
    warn_unless_covered(coverage)
    exit_unless_covered(coverage)
