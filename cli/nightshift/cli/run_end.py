"""The summary and the exit code of a command that planned or followed a run."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from nightshift.cli.echo import echo
from nightshift.cli.formats import format_reasons
from nightshift.cli.wait import wait_for_run
from nightshift.results.runs import failed_by_reason, progress
from nightshift.schema.errors import InputError
from nightshift.schema.states import RunState, Stage
from nightshift.stores.postgres.database import Database

__all__ = ["RunEnd", "follow_run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """The state of a run when its command ends; it may still be running."""

    run_id: int
    state: RunState = RunState.RUNNING
    #: Reason → failed items, queries, pairs and rows of the file of queries; without notices.
    reasons: Mapping[str, int] = field(default_factory=dict)
    #: Such as `all of its 1,000 pairs failed`; empty where some did not.
    all_failed: str = ""

    @property
    def aborted(self) -> bool:
        """Whether the run failed as a whole or was cancelled."""
        return self.state in (RunState.FAILED, RunState.CANCELLED)

    def json_facts(self) -> dict[str, object]:
        """The keys that every such command prints with `--json`."""
        n_failed = sum(self.reasons.values())
        return {"state": self.state.value, "failed": n_failed, "reasons": dict(self.reasons)}

    def print_and_exit(self, *, quiet: bool, hint: str = "") -> None:
        """Print the summary to stderr; exit with 1 or 7 unless all went well.

        Args:
            quiet: Print nothing.
            hint: A command to look at the results of a run that is done.
        """
        if not quiet:
            self._print(hint)
        if self.aborted:
            raise SystemExit(1)
        if self.reasons:
            raise SystemExit(InputError.exit_code)

    def _print(self, hint: str) -> None:
        if self.state is RunState.RUNNING:
            echo(f"watch it with `nightshift run watch {self.run_id}`", err=True)
        else:
            more = f"; {hint}" if hint and self.state is RunState.DONE else ""
            more = f", but {self.all_failed}" if self.all_failed else more
            echo(f"run {self.run_id} is {self.state}{more}", err=True)
        if self.reasons:
            echo(
                f"{sum(self.reasons.values()):,} failed ({format_reasons(self.reasons)}): "
                f"`nightshift run failures {self.run_id}` lists them",
                err=True,
            )


def follow_run(database: Database, run_id: int, *, quiet: bool) -> RunEnd:
    """Wait for a run to end; Ctrl-C ends the waiting, with exit code 130, and not the run.

    Raises:
        NotFoundError: If there is no such run.
        ServiceUnavailableError: If Postgres stays away; the run goes on once it is back.
    """
    try:
        state = wait_for_run(database, run_id, quiet=quiet)
    except KeyboardInterrupt:
        echo(f"run {run_id} goes on; `nightshift run cancel {run_id}` ends it", err=True)
        raise SystemExit(130) from None
    stages = progress(database, run_id).stages
    failed_stages = [stage for stage in stages if stage.units and stage.units_failed == stage.units]
    return RunEnd(
        run_id=run_id,
        state=state,
        reasons=failed_by_reason(database, run_id),
        all_failed="; ".join(
            f"all of its {stage.units:,} {_UNITS[stage.stage]} failed" for stage in failed_stages
        ),
    )


_UNITS = {
    Stage.EMBED: "items",
    Stage.SEARCH: "queries",
    Stage.SCORE: "pairs",
    Stage.RANK: "queries",
    Stage.ANSWER: "queries",
    Stage.CODEBOOK: "images",
    Stage.TOKENS: "images",
}
