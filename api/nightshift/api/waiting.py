"""Waiting for a run to end, through outages of Postgres."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from time import monotonic, sleep

from nightshift.results.runs import RunProgress, failed_by_reason, progress
from nightshift.schema.errors import NightshiftError, ServiceUnavailableError
from nightshift.schema.states import RunState, Stage
from nightshift.stores.postgres.database import Database

__all__ = ["RunEnd", "WaitTimeoutError", "poll_until_ended", "wait_for_end"]

_POLL_S = 0.3
#: A restart of Postgres, which first reads its log again.
_OUTAGE_S = 120.0

_UNIT_NAMES = {
    Stage.EMBED: "items",
    Stage.SEARCH: "queries",
    Stage.SCORE: "pairs",
    Stage.RANK: "queries",
    Stage.ANSWER: "queries",
    Stage.CODEBOOK: "images",
    Stage.TOKENS: "images",
}


class WaitTimeoutError(NightshiftError):
    """The run had not ended when the time to wait was over; it goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """The state of a run when the waiting for it was over, and what failed in it."""

    run_id: int
    state: RunState = RunState.RUNNING
    #: Reason → items, queries, pairs and rows of the file of queries that failed; no notices.
    reasons: Mapping[str, int] = field(default_factory=dict)
    #: Such as `all of its 1,000 pairs failed`; empty where some did not.
    all_failed: str = ""

    @property
    def n_failed(self) -> int:
        """Items, queries, pairs and rows that failed."""
        return sum(self.reasons.values())

    @property
    def aborted(self) -> bool:
        """True if the run failed as a whole or was cancelled."""
        return self.state in (RunState.FAILED, RunState.CANCELLED)

    def require_done(self) -> None:
        """Raise unless the run is done; single items, queries and pairs may have failed.

        Raises:
            NightshiftError: It failed as a whole, was cancelled, or has not ended.
        """
        if self.state is not RunState.DONE:
            raise NightshiftError(
                f"run {self.run_id} is {self.state.value}, not done; "
                f"`nightshift run failures {self.run_id}` gives the reasons"
            )


def poll_until_ended(
    database: Database,
    run_id: int,
    *,
    on_progress: Callable[[RunProgress], None] | None = None,
    timeout_s: float | None = None,
) -> RunProgress:
    """Block until a run is done, failed or cancelled.

    Args:
        database: Postgres.
        run_id: The run.
        on_progress: Called with each look at the run.
        timeout_s: Wait no longer than this.

    Returns:
        The last look at the run.

    Raises:
        NotFoundError: There is no such run.
        ServiceUnavailableError: Postgres stays away; the run goes on once it is back.
        WaitTimeoutError: The time is over.
    """
    give_up_at = monotonic() + _OUTAGE_S
    deadline = inf if timeout_s is None else monotonic() + timeout_s
    while True:
        try:
            current = progress(database, run_id)
        except ServiceUnavailableError:
            if monotonic() > give_up_at:
                raise
        else:
            give_up_at = monotonic() + _OUTAGE_S
            if on_progress is not None:
                on_progress(current)
            if current.ended:
                return current
        if monotonic() > deadline:
            raise WaitTimeoutError(
                f"run {run_id} has not ended after {timeout_s} s and goes on; wait again, or "
                f"`nightshift run cancel {run_id}`"
            )
        sleep(_POLL_S)


def wait_for_end(
    database: Database,
    run_id: int,
    *,
    on_progress: Callable[[RunProgress], None] | None = None,
    timeout_s: float | None = None,
) -> RunEnd:
    """Block as `poll_until_ended` does, and say what failed in the run."""
    last = poll_until_ended(database, run_id, on_progress=on_progress, timeout_s=timeout_s)
    failed_stages = [
        stage for stage in last.stages if stage.units and stage.units_failed == stage.units
    ]
    return RunEnd(
        run_id=run_id,
        state=last.run.state,
        reasons=failed_by_reason(database, run_id),
        all_failed="; ".join(
            f"all of its {stage.units:,} {_UNIT_NAMES[stage.stage]} failed"
            for stage in failed_stages
        ),
    )
