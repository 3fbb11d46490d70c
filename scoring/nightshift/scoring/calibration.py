"""Statistics of a run's scores as sums that merge: the same for any split into jobs.

Probabilities are summed as integers in units of 2⁻³², so that merging is exactly associative and
a report is the same for any number of workers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nightshift.scoring.tie_break import Placement

__all__ = ["ENTROPY_EDGES", "SCORE_EDGES", "CalibrationStats", "gamma_for", "observe_query"]

_SCORE_BINS = 20
_ENTROPY_BINS = 24
_UNIT = 2**32
_VERSION = 1
# An enhancement that acts on this share of pairs or more does not select pairs.
_STATIC_SHARE = 0.95
_T = TypeVar("_T", int, str)

#: Bins of the probability: 20 from 0 to 1; the last includes 1.
SCORE_EDGES: tuple[float, ...] = tuple(i / _SCORE_BINS for i in range(_SCORE_BINS + 1))
#: Bins of the entropy in nats: half a nat each from 0; the last is open (ln 152,064 is 11.93).
ENTROPY_EDGES: tuple[float, ...] = tuple(i / 2 for i in range(_ENTROPY_BINS + 1))


def _zeros(n: int) -> tuple[int, ...]:
    return (0,) * n


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationStats:
    """Counts over queries and their candidates; the default is the identity of `merge`."""

    n_queries: int = 0
    n_candidates: int = 0
    n_scored: int = 0
    #: Of the scored, those that an earlier run had scored.
    n_reused: int = 0
    n_failed: int = 0
    #: (20,) counts by `SCORE_EDGES`.
    score_histogram: tuple[int, ...] = _zeros(_SCORE_BINS)
    #: (24,) counts by `ENTROPY_EDGES`.
    entropy_histogram: tuple[int, ...] = _zeros(_ENTROPY_BINS)
    #: Layer whose uncertainty fired the visual enhancement → pairs.
    fired_by_layer: Mapping[int, int] = field(default_factory=dict)
    #: Pairs whose quantised score another candidate of the query shares, and such groups.
    n_tied: int = 0
    n_tie_groups: int = 0
    #: `score`, `entropy`, `coarse` → candidates that it placed.
    decided_by: Mapping[str, int] = field(default_factory=dict)
    #: Queries whose first candidate would be another by exact score only.
    winners_changed_by_tie_break: int = 0
    #: Queries scored without the enhancement too, and those whose first candidate it changed.
    n_compared: int = 0
    winners_changed_by_enhancement: int = 0
    #: (20,) by `SCORE_EDGES`, of pairs with a known judgement: pairs, relevant ones, and the
    #: sum of their probabilities in units of 2⁻³².
    labelled_by_bin: tuple[int, ...] = _zeros(_SCORE_BINS)
    relevant_by_bin: tuple[int, ...] = _zeros(_SCORE_BINS)
    probability_by_bin: tuple[int, ...] = _zeros(_SCORE_BINS)
    #: Sum of (probability − relevant)² in units of 2⁻³².
    squared_error: int = 0

    def merge(self, other: "CalibrationStats") -> "CalibrationStats":
        """Add the statistics of both, as if they had been observed together."""
        sums = {f.name: _add(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        return CalibrationStats(**sums)

    def to_json(self) -> dict[str, Any]:
        """JSON-serialisable; `from_json` is its inverse."""
        facts = asdict(self)
        facts["fired_by_layer"] = {str(layer): n for layer, n in self.fired_by_layer.items()}
        return {"version": _VERSION, **facts}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> "CalibrationStats":
        """Read what `to_json` wrote; ValueError on another version."""
        if facts.get("version") != _VERSION:
            msg = f"calibration of version {facts.get('version')!r}, this program reads {_VERSION}"
            raise ValueError(msg)
        values = {f.name: facts[f.name] for f in fields(cls)}
        values = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        values["fired_by_layer"] = {int(layer): n for layer, n in facts["fired_by_layer"].items()}
        return cls(**values)

    @property
    def n_fired(self) -> int:
        """Pairs on which the visual enhancement acted."""
        return sum(self.fired_by_layer.values())

    @property
    def is_static(self) -> bool:
        """True if the enhancement acted on nearly every pair, certain or not (methods §2.5)."""
        return self.n_fired > 0 and self.n_fired >= _STATIC_SHARE * self.n_scored

    @property
    def n_labelled(self) -> int:
        """Pairs with a known judgement."""
        return sum(self.labelled_by_bin)

    def expected_calibration_error(self) -> float | None:
        """Σ over 20 bins of |Σ probability − number relevant| / n; None without judgements."""
        if not self.n_labelled:
            return None
        gaps = np.abs(np.array(self.probability_by_bin) / _UNIT - np.array(self.relevant_by_bin))
        return float(gaps.sum() / self.n_labelled)

    def brier_score(self) -> float | None:
        """Mean of (probability − relevant)², in [0, 1]; None without judgements."""
        return self.squared_error / _UNIT / self.n_labelled if self.n_labelled else None


def observe_query(
    placements: Sequence[Placement],
    *,
    entropies: Sequence[float],
    fired_layers: Sequence[int | None],
    relevant: Sequence[bool] | None = None,
    n_reused: int = 0,
    plain_winner: int | None = None,
) -> CalibrationStats:
    """The statistics of one query.

    Args:
        placements: (k,) of `break_ties`.
        entropies: (k,) nats; NaN where none was read, as of a written score that does not tie.
        fired_layers: (k,) trigger layer of the enhancement, None where it did not fire.
        relevant: (k,) judgements, where there are any.
        n_reused: Candidates whose score an earlier run had computed.
        plain_winner: Place in `placements` of the candidate that would be first by exact score
            without the enhancement, where that was computed; compared with the first by exact
            score, so that what the tie-break changed does not count twice.
    """
    scored = [i for i, placement in enumerate(placements) if placement.probability is not None]
    winner = next((i for i, placement in enumerate(placements) if placement.final_rank == 1), None)
    untied_winner = next(
        (i for i, placed in enumerate(placements) if placed.untied_rank == 1), None
    )
    chances = np.array([placements[i].probability for i in scored], np.float64)
    known = [entropies[i] for i in scored if not math.isnan(entropies[i])]
    tied = [placements[i] for i in scored if (placements[i].tie_size or 0) > 1]
    stats = CalibrationStats(
        n_queries=1,
        n_candidates=len(placements),
        n_scored=len(scored),
        n_reused=n_reused,
        n_failed=len(placements) - len(scored),
        score_histogram=_histogram(_score_bins(chances), _SCORE_BINS),
        entropy_histogram=_histogram(np.array(known) * 2, _ENTROPY_BINS),
        fired_by_layer=_count([layer for i in scored if (layer := fired_layers[i]) is not None]),
        n_tied=len(tied),
        n_tie_groups=len({placement.tie_group for placement in tied}),
        decided_by=_count([str(placement.decided_by) for placement in placements]),
        winners_changed_by_tie_break=int(
            winner is not None and placements[winner].untied_rank != 1
        ),
        n_compared=int(plain_winner is not None),
        winners_changed_by_enhancement=int(plain_winner not in (None, untied_winner)),
    )
    if relevant is None:
        return stats
    return stats.merge(_labelled(chances, np.array([relevant[i] for i in scored], bool)))


def gamma_for(uncertainties: Sequence[float], share: float) -> float:
    """The threshold above which a share of pairs is uncertain.

    Args:
        uncertainties: (n,) each pair's most uncertain layer; infinite where it is known only to be
            above every other one. n ≥ 1.
        share: 0 to 1.

    Returns:
        Half-way between the last pair above and the first one below, so that rounding moves no
        pair. Of equal pairs at the edge none is above.
    """
    falling = np.sort(np.asarray(uncertainties, np.float64))[::-1]
    n = round(share * len(falling))
    above = falling[n - 1] if n else math.inf
    below = float(falling[n]) if n < len(falling) else 0.0
    return below if math.isinf(above) else (float(above) + below) / 2


def _labelled(chances: NDArray[np.float64], relevant: NDArray[np.bool_]) -> CalibrationStats:
    bins = _score_bins(chances)
    units = [round(chance * _UNIT) for chance in chances.tolist()]
    sums = [0] * _SCORE_BINS
    for place, unit in zip(_clipped(bins, _SCORE_BINS), units, strict=True):
        sums[place] += unit
    errors = ((chances - relevant) ** 2).tolist()
    return CalibrationStats(
        labelled_by_bin=_histogram(bins, _SCORE_BINS),
        relevant_by_bin=_histogram(bins[relevant], _SCORE_BINS),
        probability_by_bin=tuple(sums),
        squared_error=sum(round(error * _UNIT) for error in errors),
    )


def _score_bins(chances: NDArray[np.float64]) -> NDArray[np.float64]:
    return chances * _SCORE_BINS


def _clipped(places: NDArray[np.float64], n_bins: int) -> list[int]:
    clipped: list[int] = np.clip(places, 0, n_bins - 1).astype(np.int64).tolist()
    return clipped


def _histogram(places: NDArray[np.float64], n_bins: int) -> tuple[int, ...]:
    return tuple(np.bincount(_clipped(places, n_bins), minlength=n_bins).tolist())


def _count(values: Sequence[_T]) -> dict[_T, int]:
    return {value: values.count(value) for value in sorted(set(values))}


def _add(left: Any, right: Any) -> Any:  # noqa: ANN401 - one rule for each type of field
    if isinstance(left, tuple):
        return tuple(a + b for a, b in zip(left, right, strict=True))
    if isinstance(left, Mapping):
        return {key: left.get(key, 0) + right.get(key, 0) for key in sorted({*left, *right})}
    return left + right
