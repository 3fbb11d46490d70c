"""A run's calibration statistics, merged in job order."""

import math
from dataclasses import dataclass
from functools import reduce

from nightshift.schema.errors import ConflictError
from nightshift.scoring.calibration import CalibrationStats, gamma_for
from nightshift.stores.postgres.database import Database
from nightshift.stores.results import rankings
from nightshift.stores.results.rankings import MarginShift

__all__ = ["Directionality", "Threshold", "calibration", "directionality", "threshold"]


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
        rankings.require_rerank(connection, run_id)
        rows = rankings.load_statistics(connection, run_id)
        return reduce(
            CalibrationStats.merge, map(CalibrationStats.from_json, rows), CalibrationStats()
        )


def directionality(database: Database, run_id: int) -> Directionality | None:
    """Which way the enhancement moved margins; None without judged pairs of both kinds.

    Only pairs on which it acted and that were scored without it too are known to have moved.
    """
    with database.begin() as connection:
        found = rankings.margin_shifts(connection, run_id)
    if len(found) < 2:
        return None
    relevant, other = found[True], found[False]
    return Directionality(relevant=relevant, other=other, difference=relevant.mean - other.mean)


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A gamma of the enhancement, and what it does on the pairs that it was measured on."""

    gamma: float
    #: Of the measured pairs, those on which it fires.
    share: float
    n_pairs: int


def threshold(database: Database, run_id: int, share: float) -> Threshold:
    """The gamma with which the enhancement fires on a share of a run's pairs.

    Exact for the run's model, prompts and window: a pair's most uncertain layer is known where the
    enhancement looked and did not fire.

    Args:
        database: Postgres.
        run_id: A run whose enhancement looked at the pairs.
        share: Above 0, up to 1.

    Raises:
        NotFoundError: Where there is no such run.
        ConflictError: Where it looked at no pair, or fired on more of them than is asked for.
    """
    with database.begin() as connection:
        rankings.require_rerank(connection, run_id)
        fired, looked = rankings.uncertainties(connection, run_id)
    n = fired + len(looked)
    if not n:
        raise ConflictError(
            f"the enhancement looked at no pair of run {run_id}: measure on a run with "
            "--enhancement gamma=1, which looks and never fires"
        )
    if round(share * n) < fired:
        raise ConflictError(
            f"the enhancement fired on {fired / n:.1%} of the pairs of run {run_id}, so how "
            "uncertain further layers are is not known: measure on a run with --enhancement gamma=1"
        )
    gamma = gamma_for([math.inf] * fired + looked, share)
    n_above = fired + sum(uncertainty > gamma for uncertainty in looked)
    return Threshold(gamma=gamma, share=n_above / n, n_pairs=n)
