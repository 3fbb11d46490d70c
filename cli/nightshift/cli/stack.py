"""`nightshift up`, `down` and `status`: the embedded stack of a data directory."""

import logging
import signal
from dataclasses import asdict
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import click

from nightshift.cli.echo import echo, echo_json
from nightshift.cli.embedded_stack import open_stack
from nightshift.cli.options import data_dir_option, json_option, read_settings
from nightshift.schema.errors import ConflictError, ServiceUnavailableError

if TYPE_CHECKING:
    from nightshift.stack import Stack, StackStatus

__all__ = ["down", "status", "up"]

_log = logging.getLogger(__name__)


@click.command(short_help="Start the embedded stack.")
@data_dir_option
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Minimum number of running workers; 0 starts none.",
)
@click.option(
    "--dispatcher/--no-dispatcher", default=True, show_default=True, help="Start the dispatcher."
)
@click.option(
    "--supervise",
    is_flag=True,
    help="Stay in the foreground, restart parts that die, and stop all on SIGTERM or Ctrl-C.",
)
@json_option
def up(
    data_dir: Path | None, workers: int, dispatcher: bool, supervise: bool, as_json: bool
) -> None:
    """Start Postgres, Redis, Milvus Lite, the dispatcher and the workers, detached.

    Running parts stay, parts that died are restarted, and the database is migrated. All services
    listen on the loopback interface only.

    With --supervise the command stays in the foreground and logs to standard error. It restarts a
    part that dies: immediately the first time, then after pauses that double up to a minute. On
    SIGTERM or Ctrl-C it stops everything, like `nightshift down`; after `nightshift down` it ends.

    \b
    Examples:
      nightshift up
      nightshift up --workers 3
      nightshift up --data-dir ./night --workers 0
      nightshift up --supervise
    """
    from nightshift.schema.distribution import require_extras

    require_extras("the embedded stack", "embedded")
    if workers:
        require_extras("a worker (`--workers 0` starts none)", "worker")
    stack = _stack(data_dir)
    if supervise:
        _supervise(stack, workers, dispatcher=dispatcher, as_json=as_json)
    else:
        _print_status(stack.up(workers, dispatcher=dispatcher), as_json=as_json)


@click.command(short_help="Stop the embedded stack.")
@data_dir_option
@click.option(
    "--grace",
    "grace_s",
    type=click.FloatRange(min=0),
    help="Seconds a worker may take to finish its job.  [default: NIGHTSHIFT_GRACE_S, 30]",
)
@json_option
def down(data_dir: Path | None, grace_s: float | None, as_json: bool) -> None:
    """Stop all parts that `nightshift up` started; all data is kept.

    A worker that does not finish within the grace period is killed; its job is repeated after the
    next start.

    \b
    Examples:
      nightshift down
      nightshift down --data-dir ./night --grace 5
    """
    grace_s = read_settings().grace_s if grace_s is None else grace_s
    stopped = _stack(data_dir).down(grace_s)
    if as_json:
        echo_json({"stopped": stopped}, indent=None)
    else:
        echo(f"Stopped {', '.join(stopped)}." if stopped else "Nothing was running.")


@click.command(short_help="Show the parts of the embedded stack.")
@data_dir_option
@json_option
def status(data_dir: Path | None, as_json: bool) -> None:
    """Show the state, process id, uptime and address of each part.

    States: running, silent (runs but does not answer), died (ended without `nightshift down`),
    stopped. Exits with 6 if a service does not run or another part has died.

    \b
    Examples:
      nightshift status
      nightshift status --json
    """
    current = _stack(data_dir).status()
    _print_status(current, as_json=as_json)
    if not current.healthy:
        raise SystemExit(ServiceUnavailableError.exit_code)


def _supervise(stack: "Stack", workers: int, *, dispatcher: bool, as_json: bool) -> None:
    from nightshift.cli.logs import log_to_stderr
    from nightshift.stack import Supervisor, only_supervisor

    settings = read_settings()
    log_to_stderr(settings.log_level)
    stop = Event()
    # Before any start: a signal during the start must not leave parts running.
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(name, lambda *_: stop.set())
    with only_supervisor(stack):
        try:
            _print_status(stack.up(workers, dispatcher=dispatcher), as_json=as_json)
            left = Supervisor(stack).watch(stop)
        except ConflictError:
            raise  # another command starts or stops this stack
        except BaseException:
            stack.down(settings.grace_s)
            raise
        if left:
            _log.info("stopping everything")
            _log.info("stopped %s", ", ".join(stack.down(settings.grace_s)))


def _stack(data_dir: Path | None) -> "Stack":
    return open_stack(read_settings(data_dir).data_dir)


def _print_status(status: "StackStatus", *, as_json: bool) -> None:
    if as_json:
        echo_json({**asdict(status), "healthy": status.healthy})
        return
    echo(f"{'part':<12} {'state':<8} {'pid':>8} {'uptime':>9}  address")
    for part in status.parts:
        pid = "" if part.pid is None else part.pid
        uptime = "" if part.uptime_s is None else _format_uptime(part.uptime_s)
        echo(f"{part.name:<12} {part.state:<8} {pid:>8} {uptime:>9}  {part.address}".rstrip())
    echo(f"data and logs: {status.data_dir}")


def _format_uptime(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
