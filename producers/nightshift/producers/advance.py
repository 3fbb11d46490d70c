"""Begin the next stage of a run, decided from counts in the ledger.

A stage begins in one transaction; only the score stage, which may have millions of pairs, is
planned in many.
"""

import logging

from sqlalchemy import Connection

from nightshift.producers.fence import Fence
from nightshift.producers.job_sizes import block_jobs, job_size
from nightshift.producers.lost_vectors import WRITER, depends_on_vectors, find_lost_vectors
from nightshift.producers.plan_tokens import token_jobs
from nightshift.producers.score_planning import begin_planning, plan_scoring
from nightshift.producers.score_stage import continue_scoring
from nightshift.producers.unneeded_vectors import delete_unneeded_vectors
from nightshift.schema.messages import queue_name
from nightshift.schema.states import RunState, Stage
from nightshift.stores.index import indexes, reconcile
from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.index.writer import hold_writer
from nightshift.stores.ledger import reopening, runs
from nightshift.stores.ledger.jobs import add_jobs, has_unfinished_jobs, stage_rate
from nightshift.stores.ledger.run_types import AnyRun, IndexedRun, IndexRun, RerankRun, TokenRun
from nightshift.stores.postgres.database import Database
from nightshift.stores.results.pairs import queries_to_search, ranked_query_ids
from nightshift.stores.tokens import token_sets

__all__ = ["advance"]

_log = logging.getLogger(__name__)

#: Times that lost vectors are embedded again before a run gives up.
_MAX_EMBED_ROUNDS = 3


def advance(database: Database, vectors: VectorStore, run_id: int, fence: Fence) -> Stage | None:
    """Begin the next stage of a run whose present one has no job left to do.

    Args:
        database: Postgres.
        vectors: Milvus.
        run_id: The run.
        fence: Called last in the transaction; raises where another dispatcher leads by now.

    Returns:
        The stage that began; None where there was nothing to decide or the run ended.
    """
    # Before the run is locked: this takes as long as the collection is large.
    lost_keys = find_lost_vectors(database, vectors, run_id)
    with database.begin() as connection:
        run = runs.lock_run(connection, run_id)
        if run is None or has_unfinished_jobs(connection, run.id, run.stage):
            return None
        if depends_on_vectors(run):
            if lost_keys is None:
                return None
            begun: Stage | None = _after_embed_or_search(connection, run, lost_keys)
        elif isinstance(run, RerankRun) and run.control.is_planning:
            begun = None
        else:
            begun = _after_stage(connection, run)
        fence(connection)
        run = runs.get_run(connection, run_id)
    if isinstance(run, RerankRun) and run.control.is_planning:
        return plan_scoring(database, run_id, fence)
    if isinstance(run, IndexRun):
        _move_alias(database, vectors, run, fence)
    if run.state is RunState.DONE and isinstance(run, IndexedRun):
        delete_unneeded_vectors(database, vectors, run, WRITER)
    return begun


def _after_embed_or_search(
    connection: Connection, run: RerankRun, lost_keys: list[str]
) -> Stage | None:
    if lost_keys or run.control.search_again:
        return _embed_lost(connection, run, lost_keys)
    if run.stage is Stage.EMBED:
        return _begin_search(connection, run)
    begin_planning(connection, run)
    return None


def _after_stage(connection: Connection, run: AnyRun) -> Stage | None:
    if isinstance(run, TokenRun) and run.stage is Stage.CODEBOOK:
        return _begin_tokens(connection, run)
    if isinstance(run, RerankRun) and run.stage is Stage.SCORE:
        return _after_score(connection, run)
    if isinstance(run, RerankRun) and run.stage is Stage.RANK:
        runs.refresh_statistics(connection, run.id, "ranking")
    if isinstance(run, IndexRun):
        indexes.make_ready(connection, run.index_id)
    runs.set_run_state(connection, run.id, RunState.DONE)
    return None


def _move_alias(database: Database, vectors: VectorStore, run: IndexRun, fence: Fence) -> None:
    """Let the alias lead to the new version, after Postgres has committed that it is ready.

    The alias is for other programs: runs name their collection.
    """
    with hold_writer(database, vectors, WRITER):
        with database.begin() as connection:
            fence(connection)
            index = indexes.get_index(connection, run.index_id)
        vectors.set_alias(index.alias, index.collection)


def _embed_lost(connection: Connection, run: RerankRun, lost_keys: list[str]) -> Stage:
    """Embed the vectors that Milvus lost after it had acknowledged them, then search again."""
    item_ids = reconcile.forget(connection, run.index_id, lost_keys)
    rounds = run.control.embed_rounds
    if item_ids and rounds == _MAX_EMBED_ROUNDS:
        runs.fail_run(
            connection,
            run.id,
            run.stage,
            "vectors_lost",
            f"Milvus lost {len(item_ids)} vectors again after {rounds} rounds of embedding them: "
            "check its disk and its log",
        )
        return run.stage
    _log.warning("run %d: Milvus lost %d vectors; embedding them again", run.id, len(item_ids))
    if run.stage is Stage.SEARCH:
        # Any of its searches may have missed them.
        reopening.clear_search(connection, run.id)
    _add_blocks(connection, run, Stage.EMBED, item_ids)
    control = run.control.model_copy(update={"search_again": False, "embed_rounds": rounds + 1})
    runs.move_to_stage(connection, run.id, Stage.EMBED, control=control)
    return Stage.EMBED


def _begin_search(connection: Connection, run: RerankRun) -> Stage:
    query_ids = queries_to_search(connection, run.id, run.query_set_id)
    _add_blocks(connection, run, Stage.SEARCH, query_ids)
    runs.move_to_stage(connection, run.id, Stage.SEARCH)
    return Stage.SEARCH


def _after_score(connection: Connection, run: RerankRun) -> Stage:
    if continue_scoring(connection, run):
        return Stage.SCORE
    reopening.clear_ranking(connection, run.id)
    _add_blocks(connection, run, Stage.RANK, ranked_query_ids(connection, run.id))
    runs.move_to_stage(connection, run.id, Stage.RANK)
    return Stage.RANK


def _begin_tokens(connection: Connection, run: TokenRun) -> Stage:
    assert run.token_set_id is not None, "a token set with an unfinished run is not deleted"
    token_set = token_sets.get_set(connection, run.token_set_id)
    if token_set.codebook_digest is None:
        runs.fail_run(
            connection,
            run.id,
            Stage.CODEBOOK,
            "no_codebook",
            f"no codebook could be trained for {token_set.codec}: `nightshift run failures "
            f"{run.id}` says why",
        )
        return Stage.CODEBOOK
    item_ids = token_sets.items_to_see(connection, token_set, revision=run.revision)
    jobs = token_jobs(connection, run.vision_fingerprint, item_ids)
    add_jobs(connection, run.id, Stage.TOKENS, run.queue_of(Stage.TOKENS), jobs)
    runs.move_to_stage(connection, run.id, Stage.TOKENS)
    return Stage.TOKENS


def _add_blocks(connection: Connection, run: RerankRun, stage: Stage, ids: list[int]) -> None:
    model = run.model_of(stage)
    jobs = block_jobs(ids, job_size(len(ids), stage_rate(connection, stage, model)))
    add_jobs(connection, run.id, stage, queue_name(stage, model), jobs)
