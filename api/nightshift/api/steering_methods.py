"""The methods of a client that steer runs, prove their results and list workers."""

from typing import TYPE_CHECKING

from nightshift.api.connection import HasRunId, ServiceConnection, run_id_of
from nightshift.schema.states import RunState

if TYPE_CHECKING:
    from nightshift.producers.retry import Retried
    from nightshift.results.verify import Receipt
    from nightshift.stores.ledger.workers import WorkerRow

__all__ = ["SteeringMethods"]


class SteeringMethods(ServiceConnection):
    """Pausing, resuming, cancelling and retrying runs; receipts and workers."""

    def pause(self, run: int | HasRunId) -> RunState:
        """Hold a run: no job of it begins, and workers hand back those that they have.

        Returns:
            The new state.

        Example:
            >>> ns.pause(7)
            <RunState.PAUSED: 'paused'>

        Raises:
            NotFoundError: There is no such run.
            ConflictError: It is not running.
        """
        return self._move(run, RunState.PAUSED)

    def resume(self, run: int | HasRunId) -> RunState:
        """Let a paused run go on.

        Returns:
            The new state.

        Example:
            >>> ns.resume(7)
            <RunState.RUNNING: 'running'>

        Raises:
            NotFoundError: There is no such run.
            ConflictError: It is not paused.
        """
        return self._move(run, RunState.RUNNING)

    def cancel(self, run: int | HasRunId) -> RunState:
        """End a run for good; what it has written is kept.

        Returns:
            The new state.

        Example:
            >>> ns.cancel(7)
            <RunState.CANCELLED: 'cancelled'>

        Raises:
            NotFoundError: There is no such run.
            ConflictError: It has ended.
        """
        return self._move(run, RunState.CANCELLED)

    def retry_failed(self, run: int | HasRunId) -> "Retried":
        """Repeat what failed in an ended run, and what follows from it; other results stay.

        Returns:
            The stage at which the run goes on, None where nothing failed, and units by stage.

        Example:
            >>> ns.retry_failed(7).units
            {<Stage.EMBED: 'embed'>: 2}

        Raises:
            NotFoundError: There is no such run.
            ConflictError: It has not ended, or was cancelled.
        """
        from nightshift.producers.retry import retry_failed

        return retry_failed(self.database, run_id_of(run))

    def verify(self, run: int | HasRunId) -> "Receipt":
        """Prove that no result of a run is missing: count what it expected, did and failed.

        Example:
            >>> receipt = ns.verify(8)
            >>> receipt.complete, receipt.balances[0].done
            (True, 500)

        Raises:
            NotFoundError: There is no such run.
        """
        from nightshift.results.verify import verify

        return verify(self.database, run_id_of(run))

    def workers(self, *, include_stopped: bool = False) -> "list[WorkerRow]":
        """The workers, with device, model, current job, rate and age of the last report.

        Args:
            include_stopped: Also those that stopped within a week.

        Example:
            >>> [(row.pid, row.state, row.device) for row in ns.workers()]
            [(4711, 'alive', 'cuda:0')]
        """
        from nightshift.results.workers import list_workers

        return list_workers(self.database, include_stopped=include_stopped)

    def _move(self, run: int | HasRunId, state: RunState) -> RunState:
        from nightshift.stores.ledger.runs import set_run_state

        with self.database.begin() as connection:
            set_run_state(connection, run_id_of(run), state)
        return state
