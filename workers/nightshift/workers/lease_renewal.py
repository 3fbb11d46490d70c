"""Renew the lease of a job, only while its micro-batches progress.

The statement is `Ledger.renew`, beside claiming and finishing, in `stores.ledger.claims`.
"""

from time import monotonic

from nightshift.schema.errors import NightshiftError
from nightshift.schema.states import RunState
from nightshift.stores.ledger.claims import AnyClaim
from nightshift.workers.session import WorkerSession

__all__ = ["HandBackError", "Progress"]

#: A renewal opens a connection. A pause or a cancel takes effect as quickly.
_RENEW_EVERY_S = 1.5


class HandBackError(NightshiftError):
    """The job goes back unharmed: its run was paused or ended."""


class Progress:
    """Called after each micro-batch.

    Args:
        session: This worker.
        claim: The job in hand.
    """

    def __init__(self, session: WorkerSession, claim: AnyClaim) -> None:
        self._session = session
        self._claim = claim
        session.last_step = monotonic()
        self._renewed = monotonic()

    def step(self) -> None:
        """A micro-batch is done.

        Raises:
            HandBackError: When the rest should go back into the ledger.
            LeaseLostError: When another worker holds the job now.
        """
        now = self._session.last_step = monotonic()
        if now - self._renewed >= min(_RENEW_EVERY_S, self._session.settings.lease_s / 4):
            run_state = self._session.ledger.renew(self._claim)
            self._renewed = now
            if run_state is not RunState.RUNNING:
                raise HandBackError(f"run {self._claim.run_id} is {run_state.value}")
