"""Calibration statistics of a run, and the gamma for a wanted firing share."""

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
    """Margin shifts of the enhancement on relevant and on other pairs (§2.5)."""

    relevant: MarginShift
    other: MarginShift
    #: Shift on relevant pairs minus shift on others; an equal shift of all pairs changes no order.
    difference: float


def calibration(database: Database, run_id: int) -> CalibrationStats:
    """Merge the statistics of the queries ranked so far, in job order.

    They are the same for any number of workers.

    Raises:
        NotFoundError: If there is no such run.
        ConflictError: For a run that ranks nothing.
    """
    with database.begin() as connection:
        rankings.require_rerank(connection, run_id)
        rows = rankings.load_statistics(connection, run_id)
        return reduce(
            CalibrationStats.merge, map(CalibrationStats.from_json, rows), CalibrationStats()
        )


def directionality(database: Database, run_id: int) -> Directionality | None:
    """The margin shifts of the enhancement; None without judged pairs of both kinds.

    A shift is known only for pairs on which it acted and that were also scored without it.
    """
    with database.begin() as connection:
        shifts = rankings.margin_shifts(connection, run_id)
    if len(shifts) < 2:
        return None
    relevant, other = shifts[True], shifts[False]
    return Directionality(relevant=relevant, other=other, difference=relevant.mean - other.mean)


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A gamma of the enhancement, and its firing share on the pairs that it was measured on."""

    gamma: float
    #: Share of the measured pairs on which the enhancement fires.
    share: float
    n_pairs: int


def threshold(database: Database, run_id: int, share: float) -> Threshold:
    """Compute the gamma with which the enhancement fires on a share of a run's pairs.

    It is exact for the run's model, prompts and window: a pair's most uncertain layer is known
    where the enhancement measured the pair and did not fire.

    Args:
        database: Postgres.
        run_id: A run whose enhancement measured the pairs.
        share: Above 0, up to 1.

    Raises:
        NotFoundError: If there is no such run.
        ConflictError: If it measured no pair, or fired on more of them than `share`.
    """
    with database.begin() as connection:
        rankings.require_rerank(connection, run_id)
        n_fired, uncertainties = rankings.uncertainties(connection, run_id)
    n_pairs = n_fired + len(uncertainties)
    if not n_pairs:
        raise ConflictError(
            f"the enhancement measured no pair of run {run_id}: use a run with "
            "--enhancement gamma=1, which measures and never fires"
        )
    if round(share * n_pairs) < n_fired:
        raise ConflictError(
            f"the enhancement fired on {n_fired / n_pairs:.1%} of the pairs of run {run_id}, so "
            "the uncertainty of their later layers is unknown: use a run with --enhancement gamma=1"
        )
    gamma = gamma_for([math.inf] * n_fired + uncertainties, share)
    n_above = n_fired + sum(uncertainty > gamma for uncertainty in uncertainties)
    return Threshold(gamma=gamma, share=n_above / n_pairs, n_pairs=n_pairs)
