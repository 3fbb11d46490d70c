"""`nightshift answer`: answers to the queries of a run, from its best results."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from nightshift.cli.echo import echo, echo_json
from nightshift.cli.options import data_dir_option, json_option, read_settings

if TYPE_CHECKING:
    from nightshift.stores.results.answers import StoredAnswer

__all__ = ["answer"]


@click.command()
@click.argument("run_id", metavar="RUN", type=int)
@click.option("--query", help="Answer this query, by its id in the file of queries, and print it.")
@click.option("--all", "all_", is_flag=True, help="Enqueue every query that has no answer yet.")
@click.option("--wait", is_flag=True, help="With --all: come back when they are answered.")
@data_dir_option
@json_option
def answer(
    run_id: int, query: str | None, all_: bool, wait: bool, data_dir: Path | None, as_json: bool
) -> None:
    """Let the model that ranked a query answer it from the five best results of RUN.

    The workers generate the answers, with the weights that they score with; the answers are kept,
    each with the items that it cites. Without --query or --all, print those that there are.

    \b
    Examples:
      nightshift answer 7 --query q12
      nightshift answer 7 --all --wait
      nightshift answer 7 --json

    Exits with 7 when a query could not be answered, with 1 when the run failed or was cancelled.
    """
    from nightshift.api import RunEnd, connect
    from nightshift.cli.run_end import follow_run
    from nightshift.results.coverage import coverage
    from nightshift.schema.errors import InputError

    if query and all_:
        raise click.UsageError("--query answers one and --all answers all: give one of them")
    end, n_missing = RunEnd(run_id=run_id), 0
    with connect(settings=read_settings(data_dir)) as nightshift:
        covered = coverage(nightshift.database, run_id)
        if query or all_:
            planned = nightshift.answer(run_id, query)
            echo(f"run {run_id}: {planned.n_queries} queries to answer", err=True)
            if all_ and not wait:
                echo(f"watch it with `nightshift run watch {run_id}`", err=True)
                return
            end = follow_run(nightshift, run_id, quiet=as_json)
            n_missing = nightshift.count_unanswered(run_id, query)
        answers = nightshift.answers(run_id, query)
    if as_json:
        echo_json(answers)
    else:
        _print(answers)
    if query is None and len(answers) < covered.queries:
        echo(f"{len(answers):,} of {covered.queries:,} queries have an answer; {covered}", err=True)
    if end.aborted:
        echo(f"run {run_id} is {end.state}", err=True)
        raise SystemExit(1)
    if n_missing:
        reason = f"`nightshift run failures {run_id}` gives the reason"
        echo(f"{n_missing} queries have no answer; {reason}", err=True)
        raise SystemExit(InputError.exit_code)


def _print(answers: "list[StoredAnswer]") -> None:
    for answer_ in answers:
        echo(f"{answer_.query}: {answer_.text}{'' if answer_.ended else ' …'}")
        cited = ", ".join(answer_.cited) or "nothing"
        echo(f"  cites {cited}; shown {', '.join(answer_.shown)}")
