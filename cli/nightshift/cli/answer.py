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
    from nightshift.api.services import open_database
    from nightshift.cli.run_end import RunEnd, follow_run
    from nightshift.producers.plan_answers import plan_answers
    from nightshift.results.coverage import coverage
    from nightshift.schema.errors import InputError
    from nightshift.stores.results.answers import list_answers, unanswered
    from nightshift.stores.results.rankings import require_rerank

    if query and all_:
        raise click.UsageError("--query answers one and --all answers all: give one of them")
    end, missing = RunEnd(run_id=run_id), 0
    with open_database(read_settings(data_dir)) as database:
        covered = coverage(database, run_id)
        if query or all_:
            planned = plan_answers(database, run_id, query)
            echo(f"run {run_id}: {planned.n_queries} queries to answer", err=True)
            if all_ and not wait:
                echo(f"watch it with `nightshift run watch {run_id}`", err=True)
                return
            end = follow_run(database, run_id, quiet=as_json)
        with database.begin() as connection:
            require_rerank(connection, run_id)
            found = list_answers(connection, run_id, query)
            if query or all_:
                missing = len(unanswered(connection, run_id, query))
    if as_json:
        echo_json(found)
    else:
        _print(found)
    if query is None and len(found) < covered.queries:
        echo(f"{len(found):,} of {covered.queries:,} queries have an answer; {covered}", err=True)
    if end.aborted:
        echo(f"run {run_id} is {end.state}", err=True)
        raise SystemExit(1)
    if missing:
        why = f"`nightshift run failures {run_id}` says why"
        echo(f"{missing} queries have no answer; {why}", err=True)
        raise SystemExit(InputError.exit_code)


def _print(found: "list[StoredAnswer]") -> None:
    for answered in found:
        echo(f"{answered.query}: {answered.text}{'' if answered.ended else ' …'}")
        cited = ", ".join(answered.cited) or "nothing"
        echo(f"  cites {cited}; shown {', '.join(answered.shown)}")
