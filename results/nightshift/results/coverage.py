"""How much of a re-ranking run there is to show."""

from nightshift.stores.postgres.database import Database
from nightshift.stores.results import rankings
from nightshift.stores.results.coverage import Coverage, coverage_of

__all__ = ["Coverage", "coverage"]


def coverage(database: Database, run_id: int) -> Coverage:
    """How many queries of a run have a ranking.

    Raises:
        NotFoundError: Where there is no such run.
        ConflictError: For a run that ranks nothing.
    """
    with database.begin() as connection:
        return coverage_of(connection, rankings.require_rerank(connection, run_id))
