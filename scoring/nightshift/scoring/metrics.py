"""Measures of a ranking against judgements, as trec_eval defines them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = [
    "Evaluation",
    "average_precision",
    "evaluate",
    "ndcg",
    "recall",
    "reciprocal_rank",
    "success",
]

#: Item id → graded relevance; 0 and below mean not relevant.
Judgements = Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Means over the queries that have a relevant item."""

    n_queries: int
    #: Measure name, such as `recall@5`, → mean in [0, 1].
    means: Mapping[str, float]


def evaluate(
    rankings: Mapping[str, Sequence[str]],
    qrels: Mapping[str, Judgements],
    *,
    cutoffs: Sequence[int] = (1, 5, 10),
) -> Evaluation:
    """Mean measures of a run.

    Args:
        rankings: Query id → item ids, best first.
        qrels: Query id → judgements. A judged query without a ranking counts as zero; one
            without any relevant item is ignored.
        cutoffs: Depths of `recall@k`, `success@k` and `ndcg@k`.
    """
    totals: dict[str, float] = {}
    judged = {query: j for query, j in qrels.items() if any(grade > 0 for grade in j.values())}
    for query, judgements in judged.items():
        for name, value in _measures(rankings.get(query, ()), judgements, cutoffs).items():
            totals[name] = totals.get(name, 0.0) + value
    means = {name: total / len(judged) for name, total in totals.items()}
    return Evaluation(n_queries=len(judged), means=means)


def recall(ranked: Sequence[str], judgements: Judgements, *, k: int) -> float:
    """Share of the relevant items R among the first `k`: |R ∩ top k| / |R|; 0 if R is empty."""
    relevant = _relevant(judgements)
    return len(relevant & set(ranked[:k])) / len(relevant) if relevant else 0.0


def success(ranked: Sequence[str], judgements: Judgements, *, k: int) -> float:
    """1 if any relevant item is among the first `k`: the R@k of captioning benchmarks."""
    return float(not _relevant(judgements).isdisjoint(ranked[:k]))


def average_precision(ranked: Sequence[str], judgements: Judgements) -> float:
    """Mean, over all relevant items, of the precision at their ranks; 0 for items not ranked."""
    relevant = _relevant(judgements)
    n_relevant, total = 0, 0.0
    for rank, item in enumerate(ranked, 1):
        if item in relevant:
            n_relevant += 1
            total += n_relevant / rank
    return total / len(relevant) if relevant else 0.0


def reciprocal_rank(ranked: Sequence[str], judgements: Judgements) -> float:
    """1 / rank of the first relevant item; 0 if none is ranked."""
    relevant = _relevant(judgements)
    return next((1 / rank for rank, item in enumerate(ranked, 1) if item in relevant), 0.0)


def ndcg(ranked: Sequence[str], judgements: Judgements, *, k: int) -> float:
    """DCG of the first `k` over that of the ideal order; DCG = Σ grade / log2(rank + 1)."""
    ideal = _gain(sorted((g for g in judgements.values() if g > 0), reverse=True)[:k])
    gain = _gain([max(judgements.get(item, 0), 0) for item in ranked[:k]])
    return gain / ideal if ideal else 0.0


def _measures(
    ranked: Sequence[str], judgements: Judgements, cutoffs: Sequence[int]
) -> dict[str, float]:
    values = {
        "map": average_precision(ranked, judgements),
        "mrr": reciprocal_rank(ranked, judgements),
    }
    for k in cutoffs:
        values[f"recall@{k}"] = recall(ranked, judgements, k=k)
        values[f"success@{k}"] = success(ranked, judgements, k=k)
        values[f"ndcg@{k}"] = ndcg(ranked, judgements, k=k)
    return values


def _relevant(judgements: Judgements) -> set[str]:
    return {item for item, grade in judgements.items() if grade > 0}


def _gain(grades: Sequence[int]) -> float:
    return sum(grade / math.log2(rank + 1) for rank, grade in enumerate(grades, 1))
