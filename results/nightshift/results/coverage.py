"""The share of a re-ranking run's queries that have a ranking."""

from nightshift.stores.postgres.database import Database
from nightshift.stores.results import rankings
from nightshift.stores.results.coverage import Coverage, coverage_of

__all__ = ["Coverage", "coverage"]


def coverage(database: Database, run_id: int) -> Coverage:
    """Count the queries of a run that have a ranking.

    Raises:
        NotFoundError: If there is no such run.
        ConflictError: For a run that ranks nothing.
    """
    with database.begin() as connection:
        return coverage_of(connection, rankings.require_rerank(connection, run_id))
