"""RetLLM's tie-break: of candidates with equal quantised scores, the lowest entropy wins.

Quantised score: ⌊p / quantum⌋, with the probability p of the positive label (methods §1.1, §1.4).

The published rule floors p("True") to two decimals and prefers the most confident answer, which
among rejected candidates is the most confident "False". Here entropy decides only between
candidates whose tied score exceeds one half; below, the exact score does (§1.11). Without that
guard the rule is the published one.

Ties are broken in two other places: `workers.search` (`ranked`) orders equal cosines of the coarse
search, and `stores.results.tied_pairs` has this rule in SQL, to find pairs that lack an entropy.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nightshift.schema.states import DecidedBy
from nightshift.scoring.fusion import probability

__all__ = ["Placement", "break_ties"]

# Decimal steps have no exact binary form, least of all after a stay in float32 as log-odds: 0.29
# must count as 29 hundredths, not 28. `stores.results.tied_pairs` has the same in SQL.
_SLACK = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The rank of one candidate among those of its query, and what decided it."""

    #: From 1.
    final_rank: int
    #: Its rank by exact score only, from 1; it shows what the tie-break changed.
    untied_rank: int
    #: Logistic of the margin; None if the pair failed.
    probability: float | None
    #: Shared by candidates of the same quantised score, from 1 in final order; None if it failed.
    tie_group: int | None
    tie_size: int | None
    decided_by: DecidedBy


def break_ties(
    margins: ArrayLike,
    entropies: ArrayLike,
    coarse_ranks: ArrayLike,
    *,
    quantum: float = 0.01,
    fused: ArrayLike | None = None,
    exact: ArrayLike | None = None,
    guard: bool = True,
) -> list[Placement]:
    """Order the candidates of one query.

    Args:
        margins: (k,) log-odds, never rounded; NaN if the pair failed; such candidates keep
            their coarse order below the scored ones.
        entropies: (k,) nats; read only where candidates tie.
        coarse_ranks: (k,) distinct ranks of the coarse search; they decide if nothing else does.
        quantum: Step of the quantised score; 0 turns the rule off, RetLLM uses 0.01.
        fused: (k,) scores to order by in place of the probability, where a method fuses.
        exact: (k,) the same before they were rounded to a scale of 0 to 1; `fused` if not given.
        guard: True lets entropy decide only above one half; False at any score, as published.

    Returns:
        One placement for each candidate, in the order given.
    """
    margin = np.asarray(margins, np.float64)
    chance = probability(margin)
    scores = chance if fused is None else np.asarray(fused, np.float64)
    # The margin tells apart what the logistic rounds to 1.
    unrounded = margin if fused is None else scores
    unrounded = unrounded if exact is None else np.asarray(exact, np.float64)
    levels = np.floor(scores / quantum + _SLACK) if quantum else unrounded
    by_entropy = levels * quantum > 0.5 + _SLACK
    if quantum and not guard:
        by_entropy = ~np.isnan(levels)
    coarse = np.asarray(coarse_ranks, np.int64)
    within = np.where(by_entropy, np.asarray(entropies, np.float64), -unrounded)
    failed = np.isnan(margin)
    order = np.lexsort((coarse, within, -levels, failed))
    untied = np.argsort(np.lexsort((coarse, -unrounded, failed))) + 1
    final = np.argsort(order) + 1
    # A candidate that failed has no level: NaN equals nothing, not even itself.
    same_level = levels[:, None] == levels
    tie_sizes = same_level.sum(axis=1)
    twins = (same_level & (within[:, None] == within)).sum(axis=1)
    opens = np.r_[True, levels[order][1:] != levels[order][:-1]][: len(order)]
    groups = np.cumsum(opens)[final - 1]
    return [
        Placement(
            final_rank=int(final[i]),
            untied_rank=int(untied[i]),
            probability=None if failed[i] else float(chance[i]),
            tie_group=None if failed[i] else int(groups[i]),
            tie_size=None if failed[i] else int(tie_sizes[i]),
            decided_by=_decided_by(int(tie_sizes[i]), int(twins[i]), entropy=bool(by_entropy[i])),
        )
        for i in range(len(margin))
    ]


def _decided_by(tie_size: int, twins: int, *, entropy: bool) -> DecidedBy:
    if tie_size == 1:
        return DecidedBy.SCORE
    if twins != 1:
        return DecidedBy.COARSE
    return DecidedBy.ENTROPY if entropy else DecidedBy.SCORE
