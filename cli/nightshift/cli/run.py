"""`nightshift run list | show | watch | pause | resume | cancel | failures | prune …`."""

from datetime import timedelta
from pathlib import Path

import click

from nightshift.cli.echo import echo, echo_json
from nightshift.cli.options import age_option, data_dir_option, json_option, read_settings

__all__ = ["run"]

_run_argument = click.argument("run_id", metavar="RUN", type=int)


@click.group()
def run() -> None:
    """Follow, steer and explain runs."""


@run.command(name="list")
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="The newest so many."
)
@data_dir_option
@json_option
def list_runs(limit: int, data_dir: Path | None, as_json: bool) -> None:
    """Show the newest runs: what they do, how far they are, how fast.

    \b
    Examples:
      nightshift run list
      nightshift run list --limit 5 --json
    """
    from nightshift.api import connect
    from nightshift.cli.console import make_console
    from nightshift.cli.run_text import runs_table

    with connect(settings=read_settings(data_dir)) as nightshift:
        runs = nightshift.runs(limit)
    if as_json:
        echo_json([progress.to_json() for progress in runs])
    elif runs:
        make_console().print(runs_table(runs))
    else:
        echo("no run yet: `nightshift index build CATALOG --embedder SPEC` makes one")


@run.command()
@_run_argument
@data_dir_option
@json_option
def show(run_id: int, data_dir: Path | None, as_json: bool) -> None:
    """Explain RUN: its plan, stages, failures by reason, models and parameters.

    \b
    Examples:
      nightshift run show 7
      nightshift run show 7 --json
    """
    from nightshift.api import connect
    from nightshift.cli.console import make_console
    from nightshift.cli.run_text import print_details

    with connect(settings=read_settings(data_dir)) as nightshift:
        details = nightshift.run(run_id)
    if as_json:
        echo_json(details.to_json())
    else:
        print_details(make_console(), details)


@run.command()
@_run_argument
@data_dir_option
@json_option
def watch(run_id: int, data_dir: Path | None, as_json: bool) -> None:
    """Follow RUN until it ends: progress, throughput and time left of each stage.

    Exits with 0 when it is done, with 7 when something in it failed, with 1 when it failed as a
    whole or was cancelled. Ctrl-C stops the watching, not the run. With --json, prints one object
    at the end.

    \b
    Example:
      nightshift run watch 7
    """
    from nightshift.api import connect
    from nightshift.cli.run_end import follow_run, json_facts, print_and_exit
    from nightshift.results.runs import progress

    with connect(settings=read_settings(data_dir)) as nightshift:
        end = follow_run(nightshift, run_id, quiet=as_json)
        if as_json:
            current = progress(nightshift.database, run_id)
            echo_json({**current.to_json(), **json_facts(end)})
    print_and_exit(end, quiet=as_json)


@run.command()
@_run_argument
@data_dir_option
def pause(run_id: int, data_dir: Path | None) -> None:
    """Hold RUN: no job of it is begun, those in hand are handed back at their next micro-batch.

    \b
    Example:
      nightshift run pause 7
    """
    from nightshift.api import connect

    with connect(settings=read_settings(data_dir)) as nightshift:
        state = nightshift.pause(run_id)
    echo(f"run {run_id} is {state}")


@run.command()
@_run_argument
@data_dir_option
def resume(run_id: int, data_dir: Path | None) -> None:
    """Let a paused RUN go on.

    \b
    Example:
      nightshift run resume 7
    """
    from nightshift.api import connect

    with connect(settings=read_settings(data_dir)) as nightshift:
        state = nightshift.resume(run_id)
    echo(f"run {run_id} is {state}")


@run.command()
@_run_argument
@data_dir_option
def cancel(run_id: int, data_dir: Path | None) -> None:
    """End RUN for good; what it has written so far is kept.

    \b
    Example:
      nightshift run cancel 7
    """
    from nightshift.api import connect

    with connect(settings=read_settings(data_dir)) as nightshift:
        state = nightshift.cancel(run_id)
    echo(f"run {run_id} is {state}")


@run.command(name="retry-failed")
@_run_argument
@data_dir_option
@json_option
def retry_failed(run_id: int, data_dir: Path | None, as_json: bool) -> None:
    """Do once more what failed in RUN, and what follows from it; the rest of its results stays.

    RUN has ended. Mend first what `nightshift run failures` complains about.

    \b
    Examples:
      nightshift run retry-failed 7
      nightshift run retry-failed 7 --json
    """
    from nightshift.api import connect

    with connect(settings=read_settings(data_dir)) as nightshift:
        retried = nightshift.retry_failed(run_id)
    if as_json:
        echo_json(retried)
    elif retried.stage is None:
        echo(f"nothing failed in run {run_id}")
    else:
        units = ", ".join(f"{count} to {stage}" for stage, count in retried.units.items())
        echo(f"run {run_id} goes on with {retried.stage}{f': {units}' if units else ''}")


@run.command()
@_run_argument
@click.option("--limit", type=click.IntRange(min=1), help="Rows at most.  [default: all]")
@data_dir_option
@json_option
def failures(run_id: int, limit: int | None, data_dir: Path | None, as_json: bool) -> None:
    """List what went wrong in RUN and in reading its queries: which thing, why, and the remedy.

    A notice, such as a text longer than the model reads, is no failure and is marked as such.

    \b
    Examples:
      nightshift run failures 7
      nightshift run failures 7 --json
    """
    from nightshift.api import connect
    from nightshift.cli.console import make_console
    from nightshift.cli.run_text import failures_table

    with connect(settings=read_settings(data_dir)) as nightshift:
        rows = nightshift.failures(run_id, limit)
    if as_json:
        echo_json(rows)
    elif rows:
        make_console().print(failures_table(rows))
    else:
        echo(f"nothing went wrong in run {run_id}")


@run.command()
@click.option(
    "--keep",
    type=click.IntRange(min=0),
    help="Keep runs that fewer than so many newer done runs of the same kind follow; 0 keeps no "
    "ended run.",
)
@age_option("--older-than", help="Keep runs that ended within this time, such as 30d or 12h.")
@click.option("--catalog", help="Only runs of this catalogue.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and do nothing.")
@data_dir_option
@json_option
def prune(
    keep: int | None,
    older_than: timedelta | None,
    catalog: str | None,
    dry_run: bool,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Delete ended runs with their jobs, candidates and rankings.

    Re-rankings are counted for each catalogue, name of the query set and method; builds for each
    index version. With --older-than alone, the last done run of each stays. With --keep too, a run
    goes if both let it go. Runs that have not ended, and token builds whose tokens are stored, are
    never deleted.

    \b
    Examples:
      nightshift run prune --keep 7 --dry-run
      nightshift run prune --older-than 30d --catalog shop
      nightshift run prune --keep 3 --older-than 4w --json
    """
    from nightshift.api import connect
    from nightshift.cli.prune_text import print_pruned_runs, prune_progress, report_json

    with (
        connect(settings=read_settings(data_dir)) as nightshift,
        prune_progress("runs deleted", quiet=as_json) as progress,
    ):
        report = nightshift.prune_runs(
            keep=keep, older_than=older_than, catalog=catalog, dry_run=dry_run, progress=progress
        )
    if as_json:
        echo_json(report_json(report, dry_run=dry_run), indent=None)
    else:
        print_pruned_runs(report, dry_run=dry_run)
