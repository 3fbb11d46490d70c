"""When which fault strikes: drawn from a seed, paced by the work that is done."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from time import monotonic, sleep

from sqlalchemy import text

from nightshift.schema.errors import NightshiftError, ServiceUnavailableError
from nightshift.stack.faults import FAULTS, FaultTarget

__all__ = ["Schedule", "draw_kinds"]

_log = logging.getLogger(__name__)

#: A stage that stands still for this long is a finding of its own.
_STALL_S = 600.0
#: Share of a stage's units after which all its faults are due: its last job is over too soon.
_ALL_DUE_AT = 0.85


def draw_kinds(rng: Random, count: int, among: Iterable[str] = FAULTS) -> list[str]:
    """Kinds of faults in random order; each kind at least once where `count` allows."""
    kinds = list(among)
    rng.shuffle(kinds)
    drawn = [*kinds[:count], *rng.choices(kinds, k=max(0, count - len(kinds)))]
    rng.shuffle(drawn)
    return drawn


@dataclass(slots=True, kw_only=True)
class Schedule:
    """The faults of one night.

    A fault falls due with the share of the work that is done, so that a machine of any speed
    meets them spread over the whole run, and no burst of them can hold the run up for ever.
    """

    pending: list[str]
    #: Stage → share of the faults that are to strike in it.
    shares: Mapping[str, float]
    landed: Counter[str] = field(default_factory=Counter)

    def disturb(self, target: FaultTarget) -> None:
        """Strike until the run has ended.

        Raises:
            TimeoutError: When nothing has moved for ten minutes.
        """
        moved, before = monotonic(), (-1.0, -1)
        while True:
            try:
                stage, done, ended = _progress(target)
                if ended:
                    return
                due = self._due(stage, done)
                if self.pending and self.landed.total() < due:
                    self._strike(target)
            except ServiceUnavailableError as error:
                _log.warning("%s", error)
                stage, done = "", -1.0
            now = (stage, done, self.landed.total())
            if now != before:
                moved, before = monotonic(), now
            elif monotonic() - moved > _STALL_S:
                raise TimeoutError(f"run {target.run_id} stands still in {stage} at {done:.0%}")
            sleep(0.02)

    def _due(self, stage: str, done: float) -> float:
        """Number of faults that should have struck by now."""
        stages = list(self.shares)
        before = sum(self.shares[entry] for entry in stages[: stages.index(stage)])
        share = self.shares[stage] * min(1.0, done / _ALL_DUE_AT)
        # The first of a stage falls due when it begins.
        return (self.landed.total() + len(self.pending)) * (before + share) + 0.5

    def _strike(self, target: FaultTarget) -> None:
        for position, kind in enumerate(self.pending):
            try:
                said = FAULTS[kind](target)
            except NightshiftError as error:  # a part was gone already
                _log.warning("%s: %s", kind, error)
                return
            if said is not None:
                _log.info("fault %d: %s", self.landed.total() + 1, said)
                self.landed[kind] += 1
                del self.pending[position]
                return
            if not target.held_jobs():
                return


def _progress(target: FaultTarget) -> tuple[str, float, bool]:
    """Stage, share of its units that are done, and whether the run has ended."""
    with target.database.begin() as connection:
        row = connection.execute(
            text(
                """
                SELECT run.stage, run.state, coalesce(
                    sum(job.n_units) FILTER (WHERE job.state = 'done')::float
                    / nullif(sum(job.n_units) FILTER (WHERE job.state <> 'split'), 0), 0) AS done
                FROM run LEFT JOIN job ON job.run_id = run.id AND job.stage = run.stage
                WHERE run.id = :run GROUP BY run.stage, run.state
                """
            ),
            {"run": target.run_id},
        ).one()
    return str(row.stage), float(row.done), row.state not in ("running", "paused")
