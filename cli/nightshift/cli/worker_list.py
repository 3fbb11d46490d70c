"""`nightshift worker list`: each worker's state, device, model, job and rate."""

from pathlib import Path

import click

from nightshift.cli.echo import echo, echo_json
from nightshift.cli.options import data_dir_option, json_option, read_settings

__all__ = ["list_workers"]


@click.command(name="list", short_help="List the workers.")
@click.option(
    "--all", "include_stopped", is_flag=True, help="Those that stopped within a week too."
)
@data_dir_option
@json_option
def list_workers(include_stopped: bool, data_dir: Path | None, as_json: bool) -> None:
    """List the workers with device, model, current job, rate and the time of their last report.

    A worker is silent if it has not reported for 15 s: killed, frozen, or cut off. Another worker
    takes its job when the lease expires.

    \b
    Examples:
      nightshift worker list
      nightshift worker list --all --json
    """
    from nightshift.api import connect
    from nightshift.cli.console import make_console, make_table
    from nightshift.cli.formats import format_duration, format_rate

    with connect(settings=read_settings(data_dir)) as nightshift:
        workers = nightshift.workers(include_stopped=include_stopped)
    if as_json:
        echo_json(workers)
        return
    if not workers:
        echo("no worker is running; start it with `nightshift up` or `nightshift worker`")
        return
    table = make_table(
        "worker", "state", "device", "stages", "model", "job", "rate", "up", "seen",
        right="rate up seen",
    )  # fmt: skip
    for worker in workers:
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
