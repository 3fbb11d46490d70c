"""A run's calibration statistics, merged in job order."""

from functools import reduce

from nightshift.scoring.calibration import CalibrationStats
from nightshift.stores import results_read
from nightshift.stores.database import Database

__all__ = ["calibration"]


def calibration(database: Database, run_id: int) -> CalibrationStats:
    """The statistics of the queries ranked so far, the same for any number of workers.

    Raises:
        NotFoundError: Where there is no such run.
        ConflictError: For an index run, which ranks nothing.
    """
    with database.begin() as connection:
        results_read.require_rerank(connection, run_id)
        rows = results_read.load_statistics(connection, run_id)
        return reduce(
            CalibrationStats.merge, map(CalibrationStats.from_json, rows), CalibrationStats()
        )
