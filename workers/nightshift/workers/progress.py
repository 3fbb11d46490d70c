"""A job's pulse: the lease is renewed only while micro-batches progress."""

from time import monotonic

from celery.worker import state as celery_state

from nightshift.schema.errors import NightshiftError
from nightshift.schema.states import RunState
from nightshift.stores.ledger import Claim
from nightshift.workers.session import WorkerSession

__all__ = ["HandBackError", "Progress"]

_RENEW_EVERY_S = 1.0


class HandBackError(NightshiftError):
    """The job goes back unharmed: its run was paused or ended, or this worker is stopping."""


class Progress:
    """Called after each micro-batch.

    Args:
        session: This worker; it may go on for `grace_s` with the job in hand when it is stopping.
        claim: The job in hand.
    """

    def __init__(self, session: WorkerSession, claim: Claim) -> None:
        self._session = session
        self._claim = claim
        session.last_step = monotonic()
        self._renewed = monotonic()
        self._stop_seen: float | None = None

    def step(self) -> None:
        """A micro-batch is done.

        Raises:
            HandBackError: When the rest should go back into the ledger.
            LeaseLostError: When another worker holds the job now.
        """
        now = self._session.last_step = monotonic()
        if celery_state.should_stop is not None or celery_state.should_terminate is not None:
            self._stop_seen = self._stop_seen or now
            if now - self._stop_seen >= self._session.settings.grace_s:
                raise HandBackError("the worker is stopping")
        if now - self._renewed >= _RENEW_EVERY_S:
            run_state = self._session.ledger.renew(self._claim)
            self._renewed = now
            if run_state is not RunState.RUNNING:
                raise HandBackError(f"run {self._claim.run_id} is {run_state.value}")
