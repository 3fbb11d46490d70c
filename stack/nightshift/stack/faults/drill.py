"""One fault in a live run, and an account of what it cost."""

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, sleep

from sqlalchemy import text

from nightshift.schema.errors import ConflictError
from nightshift.schema.states import RunState
from nightshift.stack.faults.site import Held, Site
from nightshift.stores.ledger import receipts, runs

__all__ = ["DrillReport", "drill"]

#: How long a run may take to have a job in hand, and a job to be done again.
_PATIENCE_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillReport:
    """What was broken, and what of the run was lost by it."""

    run_id: int
    struck: str
    #: Jobs that were in the hands of workers.
    in_hand: int
    #: Of those, the ones that are still not done.
    open: int
    #: Seconds from the fault until the jobs in hand were done.
    recovered_s: float
    #: Units of jobs called done that have neither a result nor a failure.
    lost: int

    @property
    def nothing_lost(self) -> bool:
        """Whether every job in hand was done and every done job has its results."""
        return not self.open and not self.lost


def drill(site: Site, fault: Callable[[Site], str | None]) -> DrillReport:
    """Wait until the run has jobs in hand, strike, wait until those are done, and count.

    Args:
        site: The run.
        fault: What to do to it; tried again where it finds nothing to strike.

    Raises:
        ConflictError: When the run ended before the fault found something to strike.
    """
    while True:
        held, start = site.in_hand(), monotonic()
        if held and (struck := fault(site)):
            break
        _require_running(site)
        sleep(0.05)
    unfinished = _await_done(site, held, start + _PATIENCE_S)
    recovered_s = monotonic() - start
    with site.database.begin() as connection:
        lost = receipts.count_lost(connection, runs.get_run(connection, site.run_id))
    return DrillReport(
        run_id=site.run_id,
        struck=struck,
        in_hand=len(held),
        open=unfinished,
        recovered_s=recovered_s,
        lost=lost,
    )


def _require_running(site: Site) -> None:
    with site.database.begin() as connection:
        state = runs.get_run(connection, site.run_id).state
    if state is not RunState.RUNNING:
        raise ConflictError(
            f"run {site.run_id} is {state.value}: a fault needs a run that has jobs in hand"
        )


def _await_done(site: Site, held: list[Held], deadline: float) -> int:
    """How many of the jobs are not done by then."""
    jobs = [one.job_id for one in held]
    while True:
        with site.database.begin() as connection:
            unfinished = connection.execute(
                text(
                    "SELECT count(*) FROM job WHERE run_id = :run AND id = ANY(:jobs) "
                    "AND state IN ('queued', 'running')"
                ),
                {"run": site.run_id, "jobs": jobs},
            ).scalar_one()
        if not unfinished or monotonic() > deadline:
            return int(unfinished)
        sleep(0.1)
