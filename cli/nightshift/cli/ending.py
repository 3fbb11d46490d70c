"""How a command ends that planned or followed a run: what failed, and its exit code."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from nightshift.cli.output import by_reason
from nightshift.cli.say import echo
from nightshift.cli.wait import wait_for_run
from nightshift.results.runs import failed_by_reason, progress
from nightshift.schema.errors import InputError
from nightshift.schema.states import RunState, Stage
from nightshift.stores.postgres.database import Database

__all__ = ["RunEnd", "follow_run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """A run as its command leaves it; it may still be running."""

    run_id: int
    state: RunState = RunState.RUNNING
    #: Reason → items, queries, pairs and rows of the file of queries that failed; no notices.
    reasons: Mapping[str, int] = field(default_factory=dict)
    #: Such as `all of its 1,000 pairs failed`; empty where some did not.
    nothing_left: str = ""

    @property
    def broken_off(self) -> bool:
        """Whether it failed as a whole or was cancelled."""
        return self.state in (RunState.FAILED, RunState.CANCELLED)

    def facts(self) -> dict[str, object]:
        """What every command says of it with `--json`."""
        failed = sum(self.reasons.values())
        return {"state": self.state.value, "failed": failed, "reasons": dict(self.reasons)}

    def leave(self, *, quiet: bool, hint: str = "") -> None:
        """Say on stderr how it ended; exit with 1 or 7 unless all went well.

        Args:
            quiet: Say nothing.
            hint: What to look at when it is done.
        """
        if not quiet:
            self._tell(hint)
        if self.broken_off:
            raise SystemExit(1)
        if self.reasons:
            raise SystemExit(InputError.exit_code)

    def _tell(self, hint: str) -> None:
        if self.state is RunState.RUNNING:
            echo(f"watch it with `nightshift run watch {self.run_id}`", err=True)
        else:
            more = f"; {hint}" if hint and self.state is RunState.DONE else ""
            more = f", but {self.nothing_left}" if self.nothing_left else more
            echo(f"run {self.run_id} is {self.state}{more}", err=True)
        if self.reasons:
            echo(
                f"{sum(self.reasons.values()):,} failed ({by_reason(self.reasons)}): "
                f"`nightshift run failures {self.run_id}` lists them",
                err=True,
            )


def follow_run(database: Database, run_id: int, *, quiet: bool) -> RunEnd:
    """Wait for a run to end; Ctrl-C ends the waiting, with 130, and not the run.

    Raises:
        NotFoundError: Where there is no such run.
        ServiceUnavailableError: When Postgres stays away; the run goes on once it is back.
    """
    try:
        state = wait_for_run(database, run_id, quiet=quiet)
    except KeyboardInterrupt:
        echo(f"run {run_id} goes on; `nightshift run cancel {run_id}` ends it", err=True)
        raise SystemExit(130) from None
    stages = progress(database, run_id).stages
    dead = [stage for stage in stages if stage.units and stage.units_failed == stage.units]
    return RunEnd(
        run_id=run_id,
        state=state,
        reasons=failed_by_reason(database, run_id),
        nothing_left="; ".join(
            f"all of its {stage.units:,} {_UNITS[stage.stage]} failed" for stage in dead
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
