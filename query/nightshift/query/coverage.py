"""How much of a re-ranking run there is to show."""

from nightshift.stores import results_read
from nightshift.stores.coverage import Coverage, coverage_of
from nightshift.stores.database import Database

__all__ = ["Coverage", "coverage"]


def coverage(database: Database, run_id: int) -> Coverage:
    """How many queries of a run have a ranking.

    Raises:
        NotFoundError: Where there is no such run.
        ConflictError: For a run that ranks nothing.
    """
    with database.begin() as connection:
        return coverage_of(connection, results_read.require_rerank(connection, run_id))
