"""A run's calibration statistics, merged in job order."""

from dataclasses import dataclass
from functools import reduce

from nightshift.scoring.calibration import CalibrationStats
from nightshift.stores import results_read
from nightshift.stores.database import Database
from nightshift.stores.results_read import MarginShift

__all__ = ["Directionality", "calibration", "directionality"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Directionality:
    """Whether the enhancement tells relevant pairs from others, or moves all alike (§2.5)."""

    relevant: MarginShift
    other: MarginShift
    #: Gain on relevant pairs minus shift on others: a shift of all alike changes no order.
    difference: float


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


def directionality(database: Database, run_id: int) -> Directionality | None:
    """Which way the enhancement moved margins; None without judged pairs of both kinds.

    Only pairs on which it acted and that were scored without it too are known to have moved.
    """
    with database.begin() as connection:
        found = results_read.margin_shifts(connection, run_id)
    if len(found) < 2:
        return None
    relevant, other = found[True], found[False]
    return Directionality(relevant=relevant, other=other, difference=relevant.mean - other.mean)
