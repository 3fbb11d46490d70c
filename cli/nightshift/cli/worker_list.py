"""`nightshift worker list`: who works, on what, how fast."""

from pathlib import Path

import click

from nightshift.cli.echo import echo, echo_json
from nightshift.cli.options import data_dir_option, json_option, read_settings

__all__ = ["list_workers"]


@click.command(name="list", short_help="Show who works, on what, how fast.")
@click.option(
    "--all", "include_stopped", is_flag=True, help="Those that stopped within a week too."
)
@data_dir_option
@json_option
def list_workers(include_stopped: bool, data_dir: Path | None, as_json: bool) -> None:
    """Show each worker's device, model, job in hand, rate, and when it was last heard of.

    A worker is silent when it has not reported for 15 s: killed, frozen, or cut off. Its job goes
    to another one when its lease runs out.

    \b
    Examples:
      nightshift worker list
      nightshift worker list --all --json
    """
    from nightshift.api.services import open_database
    from nightshift.cli.console import make_console, make_table
    from nightshift.cli.formats import format_duration, format_rate
    from nightshift.results.workers import list_workers as list_all

    with open_database(read_settings(data_dir)) as database:
        found = list_all(database, include_stopped=include_stopped)
    if as_json:
        echo_json(found)
        return
    if not found:
        echo("no worker: `nightshift up` or `nightshift worker` starts one")
        return
    table = make_table(
        "worker", "state", "device", "stages", "model", "job", "rate", "up", "seen",
        right="rate up seen",
    )  # fmt: skip
    for worker in found:
        table.add_row(
            f"{worker.host}:{worker.pid}",
            worker.state,
            worker.device,
            worker.stages,
            worker.model or worker.model_fingerprint or "",
            f"{worker.job_id} of run {worker.run_id}" if worker.job_id else "",
            format_rate(worker.units_per_s),
            format_duration(worker.up_s),
            f"{format_duration(worker.seen_s)} ago",
        )
    make_console().print(table)
