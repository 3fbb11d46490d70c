"""The dispatcher: takes back lost jobs, advances runs, and keeps a few doorbells in Redis.

Any number may run; a lease elects the one that acts. Its whole state is in Postgres, so another
one continues where it stopped, and an emptied Redis is filled again.
"""

import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from time import monotonic
from uuid import uuid4

from sqlalchemy import Connection

from nightshift.producers.advance import advance
from nightshift.producers.fence import Fence
from nightshift.producers.planners import Planners
from nightshift.schema.errors import (
    ConflictError,
    LeaseLostError,
    NightshiftError,
    ServiceUnavailableError,
)
from nightshift.schema.settings import Settings
from nightshift.stores.broker.broker import Broker
from nightshift.stores.foreign_errors import translated_foreign
from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.ledger import jobs, load_reports, runs, workers
from nightshift.stores.ledger.counters import compact_job_counts, compact_tallies
from nightshift.stores.ledger.retries import expire_leases
from nightshift.stores.ledger.run_types import AnyRun
from nightshift.stores.postgres import named_leases
from nightshift.stores.postgres.database import Database
from nightshift.stores.postgres.election import Election

__all__ = ["Dispatcher"]

_log = logging.getLogger(__name__)

_LEASE = "dispatcher"
_LEASE_TTL_S = 8.0
_TICK_S = 0.25
_OUTAGE_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatcher:
    """Decides what is done next; workers only ever do one job.

    Args:
        database: Postgres.
        vectors: Milvus, for the alias of a finished index.
        broker: Redis.
        settings: Window and attempts.
        stuck_s: Seconds after which a run that cannot be advanced fails, so that it does not hang
            for ever.
    """

    database: Database
    vectors: VectorStore
    broker: Broker
    settings: Settings
    stuck_s: float = 60.0
    #: Run id → since when it cannot be advanced, by `monotonic`.
    _stuck_since: dict[int, float] = field(default_factory=dict)

    def run(self, stop: Event) -> None:
        """Tick until `stop` is set; outages of a service are waited out."""
        holder = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        with (
            Election(self.database, _LEASE, holder, _LEASE_TTL_S) as election,
            Planners() as planners,
        ):
            while not stop.is_set():
                done = _try_step(partial(self._tick_if_elected, election.token, planners, stop))
                stop.wait(_OUTAGE_PAUSE_S if done is None else _TICK_S)

    def tick(
        self,
        token: int | None = None,
        planners: Planners | None = None,
        stop: Event | None = None,
    ) -> int:
        """One round: expired leases, models that end workers, progress counts, stages, doorbells.

        Args:
            token: Of the lease that makes this one the leader; nothing is committed once another
                has it. None acts without an election.
            planners: The threads that plan stages; None plans them before the round goes on.
            stop: Once it is set, no plan begins another transaction.

        Returns:
            How many doorbells rang.

        Raises:
            LeaseLostError: When another leads now.
        """
        fence = partial(_confirm, token, stop)
        with self.database.begin() as connection:
            expired = expire_leases(connection, max_attempts=self.settings.max_attempts)
            failed = load_reports.fail_runs_that_end_workers(
                connection, max_attempts=self.settings.max_attempts
            )
            active = runs.active_runs(connection)
            compact_job_counts(connection)
            compact_tallies(connection)
            fence(connection)
        if expired:
            _log.warning("took back %d jobs whose lease ran out", expired)
        for run_id in failed:
            _log.error("run %d failed: its model ended one worker after another", run_id)
        if planners:
            planners.forget_ended({run.id for run in active})
        for run in active:
            plan = partial(_try_step, partial(self._advance, run.id, fence), f"run {run.id}: ")
            if planners:
                planners.submit(run.id, plan)
            else:
                plan()
        return self._ring(fence)

    def _advance(self, run_id: int, fence: Fence) -> None:
        """Advance a run; one that cannot be advanced for `stuck_s`, without an outage, fails."""
        try:
            begun = advance(self.database, self.vectors, run_id, fence)
        except (ServiceUnavailableError, LeaseLostError):
            raise
        except ConflictError as error:
            self._fail(run_id, fence, "collection_conflict", str(error))
        except Exception as error:
            since = self._stuck_since.setdefault(run_id, monotonic())
            if monotonic() - since < self.stuck_s:
                raise
            self._stuck_since.pop(run_id)
            known = error if isinstance(error, NightshiftError) else translated_foreign(error)
            message = str(known or f"unexpected {type(error).__name__}: see the dispatcher's log")
            self._fail(run_id, fence, "cannot_advance", message)
            raise
        else:
            if begun is not None:
                _log.info("run %d begins to %s", run_id, begun.value)
        self._stuck_since.pop(run_id, None)

    def _fail(self, run_id: int, fence: Fence, reason: str, message: str) -> None:
        with self.database.begin() as connection:
            run = runs.lock_run(connection, run_id)
            if run is not None:
                message = f"{message}; then `nightshift run retry-failed {run_id}`"
                runs.fail_run(connection, run_id, run.stage, reason, message)
                fence(connection)
                _log.error("run %d failed: %s", run_id, message)

    def _tick_if_elected(self, token: int | None, planners: Planners, stop: Event) -> int:
        return 0 if token is None else self.tick(token, planners, stop)

    def _ring(self, fence: Fence) -> int:
        """Fill each queue's window, the most urgent and oldest run first."""
        with self.database.begin() as connection:
            active = runs.active_runs(connection)
            n_workers = max(1, workers.count_alive(connection))
        window = self.settings.window_per_worker * n_workers
        rung = 0
        for queue in dict.fromkeys(run.queue for run in active):
            of_queue = [run for run in active if run.queue == queue]
            rung += self._fill(queue, of_queue, window, fence)
        return rung

    def _fill(self, queue: str, of_queue: list[AnyRun], window: int, fence: Fence) -> int:
        waiting = self.broker.waiting(queue)
        free = window - waiting
        if free <= 0:
            return 0
        urgent = [run for run in of_queue if run.priority == of_queue[0].priority]
        share = max(1, free // len(urgent))
        rung: list[jobs.WaitingJob] = []
        for run in of_queue:
            limit = min(share if run in urgent else free, free - len(rung))
            if limit <= 0:
                break
            with self.database.begin() as connection:
                due = jobs.jobs_to_ring(
                    connection, run.id, run.stage, limit=limit, ring_again=waiting == 0
                )
                # Before the ring: a doorbell that is answered at once must not look unsent.
                jobs.mark_rung(connection, due)
                fence(connection)
            for job in due:
                self.broker.ring(queue, job.run_id, job.job_id)
            rung += due
        return len(rung)


def _confirm(token: int | None, stop: Event | None, connection: Connection) -> None:
    """Refuse the commit of a dispatcher that no longer leads, or that is to stop.

    Without a token nobody competes with it.
    """
    if stop is not None and stop.is_set():
        raise LeaseLostError("the dispatcher stops; nothing of this step is written")
    if token is not None:
        named_leases.confirm(connection, _LEASE, token)


def _try_step(step: Callable[[], object], whose: str = "") -> object | None:
    """Do one step; an error is logged, and the next tick tries again."""
    try:
        return step() or 0
    except ServiceUnavailableError as error:
        _log.warning("%swaiting for %s: %s", whose, error.service, error)
    except LeaseLostError as error:
        _log.warning("%s", error)
    except Exception:  # noqa: BLE001 - one run's fault must not stop all others
        _log.exception("%sa round of the dispatcher failed; the next one tries again", whose)
    return None
