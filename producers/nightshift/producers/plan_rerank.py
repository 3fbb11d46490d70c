"""Plan a re-ranking run, or say what it would cost."""

from dataclasses import dataclass

from sqlalchemy import Connection

from nightshift.producers.plan_index import PlannedRun, add_embed_jobs
from nightshift.producers.record_model import record_model
from nightshift.schema.models import ModelFacts
from nightshift.schema.params import RerankParams, kinds_from_text
from nightshift.schema.plans import RerankPlan
from nightshift.schema.states import Stage
from nightshift.scoring.methods.registry import framings_of
from nightshift.stores.catalog import query_sets
from nightshift.stores.catalog.revisions import newest_revision
from nightshift.stores.index import indexes, reconcile
from nightshift.stores.ledger.jobs import stage_rate
from nightshift.stores.ledger.new_runs import create_rerank_run
from nightshift.stores.postgres.database import Database
from nightshift.stores.results.reuse import estimate_reuse

__all__ = ["PlannedRerankRun", "RerankEstimate", "estimate_rerank", "plan_rerank"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankEstimate:
    """The estimated work of a run."""

    items: int
    #: Items of the newest revision that the index lacks: no search finds them.
    not_indexed: int
    queries: int
    pairs: int
    #: Shared prefixes: forwards of the shared side; an upper bound before the search.
    groups: int
    #: Pairs that earlier runs scored under the same scorer.
    reused: int
    #: False where the index has changed since: then the number is a guess.
    reused_exactly: bool
    #: Of one worker, from measured rates; None before the first run with these models.
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRerankRun(PlannedRun):
    """A re-ranking run that has been planned."""

    #: Items of its revision that the index lacks and that it does not embed either.
    not_indexed: int


def plan_rerank(
    database: Database,
    catalog: str,
    *,
    index_name: str | None,
    query_set_id: int,
    scorer: ModelFacts,
    params: RerankParams,
    token_set_id: int | None = None,
    build_index: bool = False,
    priority: int = 5,
) -> PlannedRerankRun:
    """Begin a run; the dispatcher plans its stages, each from the results of the one before.

    Args:
        database: Postgres.
        catalog: Its name.
        index_name: The newest ready one if None.
        query_set_id: The queries.
        scorer: The scorer.
        params: Of the run.
        token_set_id: The visual tokens that its score jobs read in place of pixels.
        build_index: Embed what the index lacks of the newest revision first.
        priority: 0 goes first, 9 last.

    Raises:
        NotFoundError: Where there is no such catalogue or no index of it is ready.
    """
    with database.begin() as connection:
        index = indexes.ready_index(connection, catalog, index_name)
        record_model(connection, scorer)
        queries = query_sets.query_ids(connection, query_set_id)
        revision = newest_revision(connection, index.catalog_id)
        lacking = reconcile.items_without_vector(connection, index, revision=revision)
        to_embed = lacking if build_index else []
        plan = _first_plan(len(queries), len(lacking), build_index=build_index)
        run_id = create_rerank_run(
            connection,
            catalog_id=index.catalog_id,
            revision=revision,
            index_id=index.id,
            query_set_id=query_set_id,
            scorer=scorer.spec,
            scorer_fingerprint=scorer.fingerprint,
            token_set_id=token_set_id,
            params=params,
            plan=plan,
            priority=priority,
        )
        n_jobs = add_embed_jobs(connection, run_id, index.embedder_fingerprint, to_embed)
    return PlannedRerankRun(
        run_id=run_id,
        index=index.name,
        version=index.version,
        n_units=len(queries) * params.top_k,
        n_jobs=n_jobs,
        not_indexed=plan.not_indexed or 0,
    )


def estimate_rerank(
    connection: Connection,
    catalog: str,
    *,
    index_name: str | None,
    query_set_id: int,
    scorer: ModelFacts,
    params: RerankParams,
) -> RerankEstimate:
    """Estimate the work of `plan_rerank`; writes nothing.

    Args:
        connection: A transaction, which may hold queries that it will not keep.
        catalog: Its name.
        index_name: The newest ready one if None.
        query_set_id: The queries.
        scorer: The scorer.
        params: As for the run.

    Raises:
        NotFoundError: As for `plan_rerank`.
    """
    index = indexes.ready_index(connection, catalog, index_name)
    revision = newest_revision(connection, index.catalog_id)
    items = indexes.count_live(connection, index.id, revision=revision)
    queries = len(query_sets.query_ids(connection, query_set_id))
    n_pairs = queries * min(params.top_k, items)
    reuse = estimate_reuse(
        connection,
        query_set_id=query_set_id,
        index_id=index.id,
        scorer_fingerprint=scorer.fingerprint,
        query_parts=params.query_parts,
        item_parts=params.item_parts,
        top_k=params.top_k,
        lists=params.scorer.score == "listwise",
        revision=revision,
    )
    search = stage_rate(connection, Stage.SEARCH, index.embedder_fingerprint)
    score = stage_rate(connection, Stage.SCORE, scorer.fingerprint)
    seconds = queries / search + (n_pairs - reuse.pairs) / score if search and score else None
    return RerankEstimate(
        items=items,
        not_indexed=len(reconcile.items_without_vector(connection, index, revision=revision)),
        queries=queries,
        pairs=n_pairs,
        groups=queries if _shared_side(params) == "query" else min(items, n_pairs),
        reused=reuse.pairs,
        reused_exactly=reuse.exact,
        seconds=seconds,
    )


def _first_plan(n_queries: int, n_lacking: int, *, build_index: bool) -> RerankPlan:
    """The counts that are known when a run begins.

    Args:
        n_queries: Its queries.
        n_lacking: Items of its revision that the index lacks.
        build_index: Whether the run embeds these.
    """
    if build_index:
        return RerankPlan(queries=n_queries, not_indexed=0, to_embed=n_lacking or None)
    return RerankPlan(queries=n_queries, not_indexed=n_lacking)


def _shared_side(params: RerankParams) -> str:
    """`query` or `candidate`: the side that the pairs of a group share."""
    rule, *_ = framings_of(params.scorer)
    return rule.shared_side(kinds_from_text(params.query_parts), kinds_from_text(params.item_parts))
