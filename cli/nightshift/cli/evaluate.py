"""`nightshift evaluate`: retrieval measures of a run, from the judgements of its queries."""

from dataclasses import asdict
from pathlib import Path

import click

from nightshift.cli.options import data_dir_option, json_option, read_settings

__all__ = ["evaluate"]

_MEASURES = ("recall@1", "recall@5", "recall@10", "recall@20", "mrr", "ndcg@10", "map")


@click.command(short_help="Measure a run with its judgements.")
@click.argument("run_id", metavar="RUN", type=int)
@data_dir_option
@json_option
def evaluate(run_id: int, data_dir: Path | None, as_json: bool) -> None:
    """Compare the coarse and the fine order of RUN with the judgements of its queries.

    Prints recall, mean reciprocal rank, nDCG and mean average precision as trec_eval defines them,
    over the re-ranked candidates. A judged query that failed counts as zero. A query that the run
    has not reached is not measured; if no query is measured, the command fails.

    \b
    Examples:
      nightshift evaluate 7
      nightshift evaluate 7 --json

    Exits like `nightshift results`: 4 without any ranking, 1 or 7 if an ended run lacks rankings.
    """
    from nightshift.api import connect
    from nightshift.cli.console import make_console, make_table
    from nightshift.cli.coverage import exit_unless_covered, warn_unless_covered
    from nightshift.cli.echo import echo_json

    with connect(settings=read_settings(data_dir)) as nightshift:
        evaluation = nightshift.evaluate(run_id)
        coverage = nightshift.coverage(run_id)
    if as_json:
        echo_json({**asdict(evaluation), "coverage": coverage})
        exit_unless_covered(coverage)
        return
    counts = f"{evaluation.n_measured:,} of {evaluation.n_queries:,}"
    title = f"Run {run_id}, {counts} judged queries measured"
    if evaluation.n_failed:
        title += f", {evaluation.n_failed:,} of them without a ranking, as zero"
    table = make_table("measure", "coarse", "fine", "change", right="coarse fine change")
    for name in _MEASURES:
        before, after = evaluation.coarse[name], evaluation.fine[name]
        table.add_row(name, f"{before:.4f}", f"{after:.4f}", f"{after - before:+.4f}")
    console = make_console()
    console.print(title, style="bold")
    console.print(table)
    warn_unless_covered(coverage)
    exit_unless_covered(coverage)
