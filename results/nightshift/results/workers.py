"""Who works, on what device, with which model, how fast."""

from nightshift.stores.ledger import workers
from nightshift.stores.ledger.workers import WorkerRow
from nightshift.stores.postgres.database import Database

__all__ = ["list_workers"]


def list_workers(database: Database, *, everyone: bool = False) -> list[WorkerRow]:
    """Workers that run, or fell silent without a farewell; with `everyone` those stopped too."""
    with database.begin() as connection:
        found = workers.list_workers(connection)
    return [worker for worker in found if everyone or worker.state != "stopped"]
