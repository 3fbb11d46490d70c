"""How good a run's rankings are, before and after fine scoring, by the judgements."""

from collections.abc import Mapping
from dataclasses import dataclass

from nightshift.schema.errors import NotFoundError
from nightshift.scoring import metrics
from nightshift.stores import results_read
from nightshift.stores.database import Database

__all__ = ["CUTOFFS", "Evaluation", "evaluate"]

#: Depths of `recall@k`, `success@k` and `ndcg@k`.
CUTOFFS = (1, 5, 10, 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Means over the judged queries; names as in `scoring.metrics.evaluate`."""

    run_id: int
    #: Judged queries, those without a ranking among them: they count as zero.
    n_queries: int
    #: Measure → mean in [0, 1], of the coarse search's order.
    coarse: Mapping[str, float]
    #: The same of the final order.
    fine: Mapping[str, float]


def evaluate(database: Database, run_id: int) -> Evaluation:
    """Compare both orders of a run with the judgements of its query set.

    Raises:
        NotFoundError: Where there is no such run, or its queries have no judgements.
        ConflictError: For an index run, which ranks nothing.
    """
    with database.begin() as connection:
        results_read.require_rerank(connection, run_id)
        judged = list(results_read.judgements(connection, run_id))
    if not judged:
        raise NotFoundError(
            f"the queries of run {run_id} have no judgements; give `nightshift rerank` a file of "
            "them with --qrels"
        )
    qrels = {one.query: one.relevant for one in judged}
    coarse = metrics.evaluate({one.query: one.coarse for one in judged}, qrels, cutoffs=CUTOFFS)
    fine = metrics.evaluate({one.query: one.fine for one in judged}, qrels, cutoffs=CUTOFFS)
    return Evaluation(run_id=run_id, n_queries=fine.n_queries, coarse=coarse.means, fine=fine.means)
