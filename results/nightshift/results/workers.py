"""Workers as an operator sees them: state, device, model, job in hand and rate."""

from nightshift.stores.ledger import workers
from nightshift.stores.ledger.workers import WorkerRow
from nightshift.stores.postgres.database import Database

__all__ = ["list_workers"]


def list_workers(database: Database, *, include_stopped: bool = False) -> list[WorkerRow]:
    """Workers that are running or lost; with `include_stopped` also those that ended."""
    with database.begin() as connection:
        rows = workers.list_workers(connection)
    return [worker for worker in rows if include_stopped or worker.state != "stopped"]
