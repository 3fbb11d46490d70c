"""The ledger: jobs are claimed with a lease and a fencing token, and done in one transaction."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, TypeVar

from sqlalchemy import ColumnElement, Connection, func, select, text, update

from nightshift.schema.errors import LeaseLostError
from nightshift.schema.ledger_tables import Job, Run
from nightshift.schema.messages import Payload, parse_payload
from nightshift.schema.states import JobState, RunState, Stage
from nightshift.stores.ledger import runs
from nightshift.stores.ledger.outages import hand_back_from_outage
from nightshift.stores.ledger.retries import retry_or_split
from nightshift.stores.ledger.run_types import AnyRun, BaseRun
from nightshift.stores.postgres.database import Database

__all__ = ["AnyClaim", "Claim", "Ledger"]

#: A job that was handed back is not claimed earlier.
_PAUSE = timedelta(seconds=0.2)

_Run_co = TypeVar("_Run_co", bound=BaseRun, covariant=True)
_Payload_co = TypeVar("_Payload_co", bound=Payload, covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim(Generic[_Run_co, _Payload_co]):
    """A job in the hands of one worker, with its run."""

    run: _Run_co
    job_id: int
    stage: Stage
    payload: _Payload_co
    n_units: int
    attempt: int
    #: Fencing token: a later claim of the same job has a higher one.
    token: int

    @property
    def run_id(self) -> int:
        """Id of the run."""
        return self.run.id


AnyClaim = Claim[BaseRun, Payload]


class Ledger:
    """Claims jobs for a worker, renews their leases, and ends them.

    Between a claim and the end of its job, a process that has one connection keeps none open.

    Args:
        database: Postgres.
        worker_id: The worker.
        lease_s: Seconds without progress after which a claim may be given to another.
        max_attempts: Own attempts before a job is bisected.
    """

    def __init__(
        self, database: Database, *, worker_id: str, lease_s: float, max_attempts: int
    ) -> None:
        self.database = database
        self.worker_id = worker_id
        self.lease_s = lease_s
        self.max_attempts = max_attempts

    def claim(
        self, run_id: int, job_id: int, known: AnyRun | None = None
    ) -> Claim[AnyRun, Payload] | None:
        """Move a job from queued to running; the attempt counts before the work starts.

        Args:
            run_id: The run.
            job_id: The job in it.
            known: The run as it was read lately. A job of another stage is not claimed then: it
                may need another model.

        Returns:
            None where there is nothing to do: a second delivery, a paused or ended run.
        """
        self.database.wake()
        with self.database.begin() as connection:
            row = connection.execute(
                _CLAIM,
                {
                    "run": run_id,
                    "job": job_id,
                    "stage": known.stage.value if known else None,
                    "worker": self.worker_id,
                    "lease": self.lease_s,
                },
            ).one_or_none()
            if row is None:
                return None
            run = known or runs.get_run(connection, run_id)
        self.database.rest()
        stage = Stage(row.stage)
        return Claim(
            run=run,
            job_id=job_id,
            stage=stage,
            payload=parse_payload(stage, row.payload),
            n_units=row.n_units,
            attempt=row.attempt,
            token=row.token,
        )

    def renew(self, claim: AnyClaim) -> RunState:
        """Extend the lease after a micro-batch.

        Returns:
            The run's state: anything but `running` asks the worker to hand the job back.

        Raises:
            LeaseLostError: When another worker holds the job now.
        """
        with self.database.begin() as connection:
            state = connection.execute(
                _RENEW,
                {
                    "lease": self.lease_s,
                    "run": claim.run_id,
                    "job": claim.job_id,
                    "token": claim.token,
                },
            ).scalar()
        if state is None:
            raise _lease_lost(claim)
        return RunState(state)

    @contextmanager
    def finish(self, claim: AnyClaim, *, n_failed: int = 0) -> Iterator[Connection]:
        """One transaction for the results and `done`, guarded by the token.

        A zombie that wakes late finds its token stale and writes nothing.

        Args:
            claim: The claim to finish.
            n_failed: Units of the job that have a failure row instead of a result.

        Raises:
            LeaseLostError: When another worker holds the job now.
        """
        with self._end_of_work() as connection:
            done = connection.execute(
                update(Job)
                .where(*_holds(claim))
                .values(
                    state=JobState.DONE,
                    lease_until=None,
                    n_failed=n_failed,
                    finished_at=func.clock_timestamp(),
                )
            )
            if done.rowcount != 1:
                raise _lease_lost(claim)
            yield connection

    def hand_back(self, claim: AnyClaim, reason: str) -> None:
        """Put the job back unharmed: a stopping worker or a paused run."""
        with self._end_of_work() as connection:
            _hand_back(connection, claim, reason)

    def hand_back_from_outage(self, claim: AnyClaim, message: str) -> None:
        """Put the job back because of a lost service; unharmed unless only this job has lost it."""
        with self._end_of_work() as connection:
            hand_back_from_outage(
                connection,
                run_id=claim.run_id,
                job_id=claim.job_id,
                token=claim.token,
                message=message,
                max_attempts=self.max_attempts,
            )

    def fail_attempt(self, claim: AnyClaim, reason: str, message: str) -> None:
        """End this attempt: retry later, bisect, or record a lone unit's failure."""
        with self._end_of_work() as connection:
            retry_or_split(
                connection,
                run_id=claim.run_id,
                job_id=claim.job_id,
                token=claim.token,
                reason=reason,
                message=message,
                max_attempts=self.max_attempts,
            )

    def fail_run(self, claim: AnyClaim, reason: str, message: str) -> None:
        """End the run for what no job of it can do without.

        A run that is paused or has ended keeps its state and gets the job back unharmed: what is
        wrong shows again when it goes on. A stale claim ends nothing.
        """
        with self._end_of_work() as connection:
            # The run before the job: two workers that end one run must not wait for each other.
            state = connection.execute(
                select(Run.state).where(Run.id == claim.run_id).with_for_update(key_share=True)
            ).scalar()
            job_id = connection.execute(
                select(Job.id).where(*_holds(claim)).with_for_update()
            ).scalar()
            if job_id is None:
                return
            if state is RunState.RUNNING:
                runs.fail_run(connection, claim.run_id, claim.stage, reason, message)
            else:
                _hand_back(connection, claim, message)

    @contextmanager
    def _end_of_work(self) -> Iterator[Connection]:
        self.database.wake()
        with self.database.begin() as connection:
            yield connection


def _hand_back(connection: Connection, claim: AnyClaim, reason: str) -> None:
    connection.execute(
        update(Job)
        .where(*_holds(claim))
        .values(
            state=JobState.QUEUED,
            lease_until=None,
            sent_at=None,
            worker_id=None,
            attempt=func.greatest(Job.attempt - 1, 0),
            error=reason,
            not_before=func.clock_timestamp() + _PAUSE,
        )
    )


def _holds(claim: AnyClaim) -> tuple[ColumnElement[bool], ...]:
    """Conditions on `job` that hold while the claim has not been given to another worker."""
    return (
        Job.run_id == claim.run_id,
        Job.id == claim.job_id,
        Job.token == claim.token,
        Job.state == JobState.RUNNING,
    )


# Moves a queued job of a running run to running, with a lease and the next fencing token.
_CLAIM = text(
    """
    UPDATE job SET state = 'running', attempt = attempt + 1, token = token + 1,
        worker_id = :worker, started_at = clock_timestamp(), error = NULL,
        lease_until = clock_timestamp() + make_interval(secs => :lease)
    FROM run
    WHERE job.run_id = :run AND job.id = :job AND run.id = :run
        AND job.state = 'queued' AND job.not_before <= clock_timestamp()
        AND job.stage = coalesce(CAST(:stage AS text), job.stage)
        AND run.state = 'running'
    RETURNING job.stage, job.payload, job.n_units, job.attempt, job.token
    """
)

# Extends the lease of a claim that still holds, and reads the state of its run.
_RENEW = text(
    """
    UPDATE job SET lease_until = clock_timestamp() + make_interval(secs => :lease)
    FROM run
    WHERE job.run_id = :run AND job.id = :job AND job.token = :token
        AND job.state = 'running' AND run.id = :run
    RETURNING run.state
    """
)


def _lease_lost(claim: AnyClaim) -> LeaseLostError:
    return LeaseLostError(
        f"job {claim.job_id} of run {claim.run_id} was given to another worker after its lease "
        "ran out; nothing of this attempt is written",
        claim.job_id,
    )
