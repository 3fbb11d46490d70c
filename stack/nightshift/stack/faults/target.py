"""The target of a fault: one run of an embedded stack, and the jobs that its workers hold."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import text

from nightshift.stack.embedded.stack import Stack
from nightshift.stores.postgres.database import Database

__all__ = ["FaultTarget", "HeldJob"]

#: Selects the jobs that workers hold, the longest held first.
_HELD_JOBS = text(
    """
    SELECT id, token, worker_id FROM job
    WHERE run_id = :run AND state = 'running'
    ORDER BY started_at, id
"""
)
#: True while the ledger gives a job to the claim with this fencing token.
_IS_HELD = text(
    """
    SELECT EXISTS (
        SELECT FROM job
        WHERE run_id = :run AND id = :job AND token = :token AND state = 'running'
    )
"""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldJob:
    """A job that a worker of the stack holds."""

    job_id: int
    #: Fencing token of the claim.
    token: int
    #: Name of the worker's part, such as `worker-2`.
    worker: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultTarget:
    """One run and the programs that work on it.

    Args:
        stack: The stack that runs the services, the dispatcher and the workers.
        database: The caller's own connections, which no fault ends.
        run_id: The run.
        lease_s: The lease that the workers were started with.
    """

    stack: Stack
    database: Database
    run_id: int
    lease_s: float

    def held_jobs(self) -> list[HeldJob]:
        """The jobs that workers of this stack hold now, the longest held first."""
        with self.database.begin() as connection:
            rows = connection.execute(_HELD_JOBS, {"run": self.run_id}).all()
        part_names = {part.pid: part.name for part in self.stack.status().parts if part.pid}
        claims = [(row, int(row.worker_id.split(":")[-2])) for row in rows if row.worker_id]
        return [
            HeldJob(job_id=row.id, token=row.token, worker=part_names[pid], pid=pid)
            for row, pid in claims
            if pid in part_names and not _is_stopped(pid)
        ]

    def is_held(self, job: HeldJob) -> bool:
        """True while the ledger still gives the job to that claim."""
        with self.database.begin() as connection:
            values = {"run": self.run_id, "job": job.job_id, "token": job.token}
            return bool(connection.execute(_IS_HELD, values).scalar_one())


def _is_stopped(pid: int) -> bool:
    """True for a process that was stopped by a signal, or has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] == "T"
