"""`nightshift drill`: inject a fault into a live run and check that nothing is lost."""

from pathlib import Path

import click

from nightshift.cli.echo import echo, echo_json
from nightshift.cli.options import data_dir_option, json_option, read_settings

__all__ = ["drill"]


class _FaultName(click.Choice[str]):
    """A key of `FAULTS`, whose module is imported only when names are read or listed."""

    def __init__(self) -> None:
        self.case_sensitive = True

    @property
    def choices(self) -> tuple[str, ...]:  # type: ignore[override] # click sets it once, early
        from nightshift.stack.faults import FAULTS

        return tuple(FAULTS)


@click.command()
@click.argument("fault", type=_FaultName())
@click.option(
    "--run",
    "run_id",
    type=int,
    help="The run to disturb.  [default: the running run of the highest priority]",
)
@data_dir_option
@json_option
def drill(fault: str, run_id: int | None, data_dir: Path | None, as_json: bool) -> None:
    """Inject FAULT into a live run of the embedded stack, and count lost results.

    Waits until workers hold jobs of the run, injects the fault, restarts the killed processes, and
    waits until those jobs are done. Exits with 1 if a job stays open or a result is missing.

    \b
    Examples:
      nightshift drill kill-worker
      nightshift drill flush-redis --run 7 --json
    """
    from dataclasses import asdict

    from nightshift.api.services import open_database
    from nightshift.cli.embedded_stack import open_stack
    from nightshift.cli.formats import format_duration
    from nightshift.schema.errors import ConfigurationError, ConflictError
    from nightshift.stack import faults
    from nightshift.stores.ledger import runs

    settings = read_settings(data_dir)
    stack = open_stack(settings.data_dir)
    if settings.database_url:
        raise ConfigurationError(
            f"a drill breaks parts of the embedded stack only, and the one in {stack.data_dir} is "
            "not in use: leave NIGHTSHIFT_DATABASE_URL unset"
        )
    with open_database(settings, application="nightshift drill") as database:
        if run_id is None:
            with database.begin() as connection:
                active = runs.active_runs(connection)
            if not active:
                raise ConflictError("no run is running: start a run first")
            run_id = active[0].id
        target = faults.FaultTarget(
            stack=stack, database=database, run_id=run_id, lease_s=settings.lease_s
        )
        report = faults.drill(target, faults.FAULTS[fault])
    if as_json:
        echo_json({"fault": fault, **asdict(report), "nothing_lost": report.nothing_lost})
    else:
        echo(f"run {report.run_id}: {report.struck}")
        echo(
            f"{report.in_hand - report.open} of {report.in_hand} jobs in hand were done after "
            f"{format_duration(report.recovered_s)}"
        )
        echo(f"lost: {'nothing' if not report.lost else f'{report.lost} results'}")
    if not report.nothing_lost:
        raise SystemExit(1)
