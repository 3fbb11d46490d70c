"""The measures of a run's rankings against judgements, before and after fine scoring."""

from collections.abc import Mapping
from dataclasses import dataclass

from nightshift.schema.errors import ConflictError, NotFoundError
from nightshift.schema.states import RunState
from nightshift.scoring import metrics
from nightshift.stores.postgres.database import Database
from nightshift.stores.results import rankings
from nightshift.stores.results.coverage import coverage_of

__all__ = ["CUTOFFS", "RunEvaluation", "evaluate"]

#: Depths of `recall@k`, `success@k` and `ndcg@k`.
CUTOFFS = (1, 5, 10, 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvaluation:
    """Means over the measured queries; names as in `scoring.metrics.evaluate`."""

    run_id: int
    state: RunState
    #: Judged queries.
    n_queries: int
    #: Judged queries that have a ranking or never will; a query that the run has not reached yet
    #: is not measured.
    n_measured: int
    #: Measured queries without a ranking; they count as zero.
    n_failed: int
    #: Measure → mean in [0, 1] for the order of the coarse search.
    coarse: Mapping[str, float]
    #: The same for the final order.
    fine: Mapping[str, float]


def evaluate(database: Database, run_id: int) -> RunEvaluation:
    """Compare both orders of a run with the judgements of its query set.

    Raises:
        NotFoundError: If there is no such run, or its queries have no judgements.
        ConflictError: For a run that ranks nothing, or if no judged query is ranked.
    """
    with database.begin() as connection:
        run = rankings.require_rerank(connection, run_id)
        coverage = coverage_of(connection, run)
        judged = list(rankings.judged_queries(connection, run_id))
    if not judged:
        raise NotFoundError(
            f"the queries of run {run_id} have no judgements; give `nightshift rerank` a file of "
            "them with --qrels"
        )
    coverage.require_rankings()
    measured = [
        query for query in judged if query.fine or query.failed or run.state is RunState.DONE
    ]
    n_failed = sum(not query.fine for query in measured)
    if n_failed == len(measured):
        raise ConflictError(
            f"no judged query of run {run_id} has a ranking, so nothing is measured: {coverage}"
        )
    qrels = {query.query: query.relevant for query in measured}
    coarse = metrics.evaluate({q.query: q.coarse for q in measured}, qrels, cutoffs=CUTOFFS)
    fine = metrics.evaluate({q.query: q.fine for q in measured}, qrels, cutoffs=CUTOFFS)
    return RunEvaluation(
        run_id=run_id,
        state=run.state,
        n_queries=len(judged),
        n_measured=len(measured),
        n_failed=n_failed,
        coarse=coarse.means,
        fine=fine.means,
    )
