"""The end of a command that planned or followed a run: what failed, and its exit code."""

from typing import TYPE_CHECKING

from nightshift.cli.echo import echo
from nightshift.cli.formats import format_reasons
from nightshift.cli.wait import ProgressView
from nightshift.schema.errors import InputError
from nightshift.schema.states import RunState

if TYPE_CHECKING:
    from nightshift.api import Nightshift, RunEnd

__all__ = ["follow_run", "json_facts", "print_and_exit"]


def follow_run(nightshift: "Nightshift", run_id: int, *, quiet: bool) -> "RunEnd":
    """Wait for a run to end and show its progress; Ctrl-C ends the waiting, with 130, not the run.

    Raises:
        NotFoundError: There is no such run.
        ServiceUnavailableError: Postgres stays away; the run goes on once it is back.
    """
    try:
        with ProgressView(quiet=quiet) as view:
            return nightshift.wait(run_id, progress=view.show)
    except KeyboardInterrupt:
        echo(f"run {run_id} goes on; `nightshift run cancel {run_id}` ends it", err=True)
        raise SystemExit(130) from None


def json_facts(end: "RunEnd") -> dict[str, object]:
    """The keys about a run that every command prints with `--json`."""
    return {"state": end.state.value, "failed": end.n_failed, "reasons": dict(end.reasons)}


def print_and_exit(end: "RunEnd", *, quiet: bool, hint: str = "") -> None:
    """Print on stderr how the run ended; exit with 1 or 7 unless all went well.

    Args:
        end: The run, which may still be running.
        quiet: Print nothing.
        hint: The command to use next when the run is done.
    """
    if not quiet:
        _print_end(end, hint)
    if end.aborted:
        raise SystemExit(1)
    if end.reasons:
        raise SystemExit(InputError.exit_code)


def _print_end(end: "RunEnd", hint: str) -> None:
    if end.state is RunState.RUNNING:
        echo(f"watch it with `nightshift run watch {end.run_id}`", err=True)
    else:
        more = f"; {hint}" if hint and end.state is RunState.DONE else ""
        more = f", but {end.all_failed}" if end.all_failed else more
        echo(f"run {end.run_id} is {end.state}{more}", err=True)
    if end.reasons:
        echo(
            f"{end.n_failed:,} failed ({format_reasons(end.reasons)}): "
            f"`nightshift run failures {end.run_id}` lists them",
            err=True,
        )
