"""A drill: inject one fault into a live run, and report what it cost."""

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, sleep

from sqlalchemy import text

from nightshift.schema.errors import ConflictError
from nightshift.schema.states import RunState
from nightshift.stack.faults.target import FaultTarget, HeldJob
from nightshift.stores.ledger import receipts, runs

__all__ = ["DrillReport", "drill"]

#: Seconds that the jobs in hand may take to be done after the fault.
_RECOVERY_TIMEOUT_S = 600.0

#: Counts the jobs of a list that are not done.
_COUNT_OPEN_JOBS = text(
    """
    SELECT count(*) FROM job
    WHERE run_id = :run AND id = ANY(:jobs) AND state IN ('queued', 'running')
"""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillReport:
    """The result of a drill: what was broken, and what the run lost."""

    run_id: int
    #: The sentence of the fault.
    struck: str
    #: Jobs that workers held when the fault was injected.
    in_hand: int
    #: Those of them that are still not done.
    open: int
    #: Seconds from the fault until they were done.
    recovered_s: float
    #: Units of done jobs that have neither a result nor a recorded failure.
    lost: int

    @property
    def nothing_lost(self) -> bool:
        """True if every held job was done and every done job has its results."""
        return not self.open and not self.lost


def drill(target: FaultTarget, fault: Callable[[FaultTarget], str | None]) -> DrillReport:
    """Inject a fault while workers hold jobs, wait until those are done, and count the losses.

    Args:
        target: The run.
        fault: The fault; repeated until it finds something to break.

    Raises:
        ConflictError: When the run ended before the fault found something to break.
    """
    while True:
        held_jobs, start = target.held_jobs(), monotonic()
        if held_jobs and (struck := fault(target)):
            break
        _require_running(target)
        sleep(0.05)
    unfinished = _await_done(target, held_jobs, start + _RECOVERY_TIMEOUT_S)
    recovered_s = monotonic() - start
    with target.database.begin() as connection:
        lost = receipts.count_lost(connection, runs.get_run(connection, target.run_id))
    return DrillReport(
        run_id=target.run_id,
        struck=struck,
        in_hand=len(held_jobs),
        open=unfinished,
        recovered_s=recovered_s,
        lost=lost,
    )


def _require_running(target: FaultTarget) -> None:
    with target.database.begin() as connection:
        state = runs.get_run(connection, target.run_id).state
    if state is not RunState.RUNNING:
        raise ConflictError(
            f"run {target.run_id} is {state.value}: a fault needs a run that has jobs in hand"
        )


def _await_done(target: FaultTarget, held_jobs: list[HeldJob], deadline: float) -> int:
    """The number of these jobs that are not done at the deadline."""
    job_ids = [job.job_id for job in held_jobs]
    while True:
        with target.database.begin() as connection:
            unfinished = connection.execute(
                _COUNT_OPEN_JOBS, {"run": target.run_id, "jobs": job_ids}
            ).scalar_one()
        if not unfinished or monotonic() > deadline:
            return int(unfinished)
        sleep(0.1)
