"""Where a fault strikes: one run of an embedded stack, and what its workers have in hand."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import text

from nightshift.stack.embedded import Stack
from nightshift.stores.postgres.database import Database

__all__ = ["Held", "Site"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A job in the hands of a worker of this stack."""

    job_id: int
    #: Fencing token of the claim.
    token: int
    #: Name of the worker's part, such as `worker-2`.
    worker: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One run and the programs that work on it.

    Args:
        stack: Runs the services, the dispatcher and the workers.
        database: A connection of the caller's own, which no fault drops.
        run_id: The run.
        lease_s: As the workers were started with.
    """

    stack: Stack
    database: Database
    run_id: int
    lease_s: float

    def in_hand(self) -> list[Held]:
        """The jobs that workers of this stack hold now."""
        with self.database.begin() as connection:
            rows = connection.execute(
                text(
                    "SELECT id, token, worker_id FROM job "
                    "WHERE run_id = :run AND state = 'running' ORDER BY started_at, id"
                ),
                {"run": self.run_id},
            ).all()
        parts = {part.pid: part.name for part in self.stack.status().parts if part.pid}
        found = [(row, int(row.worker_id.split(":")[-2])) for row in rows if row.worker_id]
        return [
            Held(job_id=row.id, token=row.token, worker=parts[pid], pid=pid)
            for row, pid in found
            if pid in parts and not _is_stopped(pid)
        ]

    def holds(self, held: Held) -> bool:
        """Whether the ledger still leaves the job to that claim."""
        with self.database.begin() as connection:
            found = connection.execute(
                text(
                    "SELECT 1 FROM job WHERE run_id = :run AND id = :job AND token = :token "
                    "AND state = 'running'"
                ),
                {"run": self.run_id, "job": held.job_id, "token": held.token},
            )
            return found.scalar() is not None


def _is_stopped(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] == "T"
