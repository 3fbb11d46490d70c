"""What comes after a stage: decided here only, from ledger counts, in one transaction a step."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypedDict

from sqlalchemy import Connection

from nightshift.producers.around_search import is_around_search, lost_around_search
from nightshift.producers.job_sizes import block_jobs, job_size, score_jobs
from nightshift.producers.plan_tokens import token_jobs
from nightshift.schema.messages import queue_name
from nightshift.schema.params import RerankParams
from nightshift.schema.states import RunKind, RunState, Stage
from nightshift.scoring.methods.registry import framings_of, tie_framing
from nightshift.stores.index import indexes, reconcile
from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.index.writer import hold_writer
from nightshift.stores.ledger import failing, reopening, runs
from nightshift.stores.ledger.jobs import NewJob, add_jobs, stage_rate, unfinished_jobs
from nightshift.stores.ledger.runs import RunRow
from nightshift.stores.postgres.database import Database
from nightshift.stores.results import equal_pairs, pairs
from nightshift.stores.results.pairs import KindPair, queries_to_search, ranked_query_ids
from nightshift.stores.tokens import token_sets

__all__ = ["Fence", "advance"]

Fence = Callable[[Connection], None]

_log = logging.getLogger(__name__)

_WRITER = "dispatcher"
#: Times that lost vectors are embedded again before a run gives up.
_MOST_ROUNDS = 3
#: Times that another of several equal pairs is asked about, where the one before failed.
_MOST_EQUAL = 2


def advance(database: Database, vectors: VectorStore, run_id: int, fence: Fence) -> Stage | None:
    """Begin the next stage of a run whose present one has no job left to do.

    Args:
        database: Postgres.
        vectors: Milvus.
        run_id: The run.
        fence: Called last in the transaction; raises where another decides by now.

    Returns:
        The stage that began; None where there was nothing to decide or the run ended.
    """
    # Before the run is locked: this takes as long as the collection is large.
    lost = lost_around_search(database, vectors, run_id)
    with database.begin() as connection:
        run = runs.lock_run(connection, run_id)
        if run is None or unfinished_jobs(connection, run.id, run.stage):
            return None
        if lost is None and is_around_search(run):
            return None
        again = lost or run.plan.get("search_again")
        begun = (
            _embed_again(connection, run, lost or [])
            if again
            else _NEXT[run.stage](connection, run)
        )
        fence(connection)
    if run.stage is Stage.EMBED and run.kind is RunKind.INDEX:
        # After Postgres has committed: the alias is for outsiders, runs pin their collection.
        with hold_writer(database, vectors, _WRITER):
            with database.begin() as connection:
                fence(connection)
                index = indexes.get_index(connection, run.index_id)
            vectors.set_alias(index.alias, index.collection)
    return begun


def _embed_again(connection: Connection, run: RunRow, lost: list[str]) -> Stage:
    """Embed what Milvus has lost since it acknowledged it; then search, once more if need be."""
    missing = reconcile.forget(connection, run.index_id, lost)
    rounds = int(run.plan.get("embed_rounds", 0))
    if missing and rounds == _MOST_ROUNDS:
        failing.fail_run(
            connection,
            run.id,
            run.stage,
            "vectors_lost",
            f"Milvus lost {len(missing)} vectors again after {rounds} rounds of embedding them: "
            "check its disk and its log",
        )
        return run.stage
    _log.warning("run %d: Milvus lost %d vectors; embedding them again", run.id, len(missing))
    if run.stage is Stage.SEARCH:
        # Nobody knows which searches missed them.
        reopening.clear_search(connection, run.id)
    _add_blocks(connection, run, Stage.EMBED, run.embedder_fingerprint, missing)
    runs.move_to_stage(connection, run.id, Stage.EMBED, {"embed_rounds": rounds + 1})
    return Stage.EMBED


def _search(connection: Connection, run: RunRow) -> Stage:
    assert run.query_set_id is not None
    queries = queries_to_search(connection, run.id, run.query_set_id)
    _add_blocks(connection, run, Stage.SEARCH, run.embedder_fingerprint, queries)
    runs.move_to_stage(connection, run.id, Stage.SEARCH, {})
    return Stage.SEARCH


def _add_blocks(
    connection: Connection, run: RunRow, stage: Stage, model: str | None, ids: list[int]
) -> None:
    rate = stage_rate(connection, stage, model)
    jobs = block_jobs(ids, job_size(len(ids), rate))
    add_jobs(connection, run.id, stage, queue_name(stage, model), jobs)


def _after_embed(connection: Connection, run: RunRow) -> Stage | None:
    if run.kind is RunKind.RERANK:
        return _search(connection, run)
    indexes.make_ready(connection, run.index_id)
    _end(connection, run)
    return None


def _after_search(connection: Connection, run: RunRow) -> Stage:
    params = RerankParams.model_validate(run.params)
    runs.refresh_statistics(connection, run.id, "candidate")
    # A run that is taken up again may have scored some of them itself.
    equal_pairs.share_scores(connection, run, **_seen(params))
    equal_pairs.reuse_scores(connection, run, **_seen(params))
    parts = {"query_parts": params.query_parts, "item_parts": params.item_parts}
    pairs.record_unscorable(connection, run.id, **parts)
    asked = _record_unasked(connection, run, params)
    counts = pairs.count_pairs(connection, run.id)
    planned = _add_score_jobs(connection, run, params, asked, counts.unscored)
    equal = counts.unscored - planned.pairs
    plan = {
        "pairs": counts.pairs,
        "reused": counts.reused,
        "unscorable": counts.unscorable,
        # Contents that another pair has too: scored with it.
        "equal": equal,
        "to_score": counts.pairs - counts.reused - counts.unscorable - equal,
        # A run that is taken up again adds to the groups of its first pass.
        "groups": run.plan.get("groups", 0) + planned.groups,
    }
    runs.move_to_stage(connection, run.id, Stage.SCORE, plan)
    return Stage.SCORE


def _after_score(connection: Connection, run: RunRow) -> Stage:
    params = RerankParams.model_validate(run.params)
    runs.refresh_statistics(connection, run.id, "pair_score")
    if run.plan.get("equal") and _share(connection, run, params):
        return Stage.SCORE
    if _ask_about_ties(connection, run, params):
        return Stage.SCORE
    reopening.clear_ranking(connection, run.id)
    queries = ranked_query_ids(connection, run.id)
    _add_blocks(connection, run, Stage.RANK, None, queries)
    runs.move_to_stage(connection, run.id, Stage.RANK, {})
    return Stage.RANK


def _share(connection: Connection, run: RunRow, params: RerankParams) -> bool:
    """Give pairs the score of an equal one; where that has none, ask about another of them."""
    equal_pairs.share_scores(connection, run, **_seen(params))
    equal_pairs.share_entropies(connection, run.id)
    rounds = int(run.plan.get("equal_rounds", 0))
    if rounds < _MOST_EQUAL and params.scorer.score != "listwise":
        asked, _ = _by_prompt(connection, run, params)
        planned = _add_score_jobs(connection, run, params, asked, run.plan["equal"])
        if planned.pairs:
            plan = {
                "equal_rounds": rounds + 1,
                "equal": run.plan["equal"] - planned.pairs,
                "to_score": run.plan["to_score"] + planned.pairs,
                "groups": run.plan["groups"] + planned.groups,
            }
            runs.move_to_stage(connection, run.id, Stage.SCORE, plan)
            return True
    equal_pairs.share_failures(
        connection, run.id, query_parts=params.query_parts, item_parts=params.item_parts
    )
    return False


def _ask_about_ties(connection: Connection, run: RunRow, params: RerankParams) -> bool:
    """Ask once more about pairs whose scores tie, where the score holds no entropy; once a pass."""
    if "tied" in run.plan or not params.quantum or tie_framing(params.scorer) is None:
        return False
    tied = list(
        pairs.tied_pairs(
            connection,
            run.id,
            quantum=params.quantum,
            fusion=params.fusion,
            guard=params.tie_guard,
        )
    )
    n_tied = sum(len(items) for _, items in tied)
    rate = stage_rate(connection, Stage.SCORE, run.scorer_fingerprint)
    jobs = score_jobs(tied, job_size(n_tied, rate), "query", asks="ties")
    queue = queue_name(Stage.SCORE, run.scorer_fingerprint)
    add_jobs(connection, run.id, Stage.SCORE, queue, jobs)
    runs.move_to_stage(connection, run.id, Stage.SCORE, {"tied": n_tied})
    return bool(tied)


def _after_rank(connection: Connection, run: RunRow) -> None:
    runs.refresh_statistics(connection, run.id, "ranking")
    _end(connection, run)


def _end(connection: Connection, run: RunRow) -> None:
    runs.set_run_state(connection, run.id, RunState.DONE)


def _after_codebook(connection: Connection, run: RunRow) -> Stage:
    assert run.token_set_id is not None
    assert run.scorer_fingerprint is not None
    token_set = token_sets.get_set(connection, run.token_set_id)
    if token_set.codebook_digest is None:
        failing.fail_run(
            connection,
            run.id,
            Stage.CODEBOOK,
            "no_codebook",
            f"no codebook could be trained for {token_set.codec}: `nightshift run failures "
            f"{run.id}` says why",
        )
        return Stage.CODEBOOK
    jobs = token_jobs(
        connection, run.scorer_fingerprint, token_sets.items_to_see(connection, token_set)
    )
    queue = queue_name(Stage.TOKENS, run.scorer_fingerprint)
    add_jobs(connection, run.id, Stage.TOKENS, queue, jobs)
    runs.move_to_stage(connection, run.id, Stage.TOKENS, {})
    return Stage.TOKENS


_NEXT = {
    Stage.EMBED: _after_embed,
    Stage.SEARCH: _after_search,
    Stage.SCORE: _after_score,
    Stage.RANK: _after_rank,
    Stage.CODEBOOK: _after_codebook,
    Stage.TOKENS: _end,
    Stage.ANSWER: _end,
}


def _record_unasked(connection: Connection, run: RunRow, params: RerankParams) -> list[KindPair]:
    """Record pairs that the framing has no prompt for: they would be planned forever.

    Returns:
        What the scorer sees of the others.
    """
    rule, *_ = framings_of(params.scorer)
    asked, unasked = _by_prompt(connection, run, params)
    if unasked:
        message = (
            f"framing {rule.name!r} has no prompt for what this run shows of this query and item: "
            "choose other --query-parts or --item-parts, or another framing"
        )
        pairs.record_unasked(
            connection,
            run.id,
            query_parts=params.query_parts,
            item_parts=params.item_parts,
            combinations=unasked,
            message=message,
        )
    return asked


def _by_prompt(
    connection: Connection, run: RunRow, params: RerankParams
) -> tuple[list[KindPair], list[KindPair]]:
    """What the scorer sees of unscored pairs: kinds that the framing has a prompt for, and not."""
    rule, *_ = framings_of(params.scorer)
    asked: list[KindPair] = []
    unasked: list[KindPair] = []
    kinds = pairs.kind_pairs(
        connection, run.id, query_parts=params.query_parts, item_parts=params.item_parts
    )
    for pair in kinds:
        (asked if (pair.query, pair.item) in rule.templates else unasked).append(pair)
    return asked, unasked


def _add_score_jobs(
    connection: Connection, run: RunRow, params: RerankParams, asked: list[KindPair], n_pairs: int
) -> "_Counted":
    """Queue unscored pairs, grouped by the side that the framing shares for their kinds.

    Args:
        connection: The transaction of the step.
        run: The run.
        params: Its parameters.
        asked: What the scorer sees of pairs that it has a prompt for.
        n_pairs: About how many pairs there are.
    """
    rate = stage_rate(connection, Stage.SCORE, run.scorer_fingerprint)
    jobs = list(_score_jobs(connection, run, params, asked, job_size(n_pairs, rate)))
    queue = queue_name(Stage.SCORE, run.scorer_fingerprint)
    add_jobs(connection, run.id, Stage.SCORE, queue, jobs)
    return _Counted(
        pairs=sum(job.n_units for job in jobs),
        groups=sum(len(job.payload["groups"]) for job in jobs),
    )


def _score_jobs(
    connection: Connection, run: RunRow, params: RerankParams, asked: list[KindPair], size: int
) -> Iterator[NewJob]:
    rule, *_ = framings_of(params.scorer)
    for side in ("query", "candidate"):
        wanted = [pair for pair in asked if rule.shared_side(pair.query, pair.item) == side]
        if wanted:
            seen = _seen(params)
            groups = pairs.groups(connection, run.id, **seen, combinations=wanted, shared_side=side)
            yield from score_jobs(groups, size, side, lists=seen["lists"])


class _Seen(TypedDict):
    query_parts: str
    item_parts: str
    lists: bool


def _seen(params: RerankParams) -> _Seen:
    """What the scorer sees of pairs, and whether as lists."""
    return {
        "query_parts": params.query_parts,
        "item_parts": params.item_parts,
        "lists": params.scorer.score == "listwise",
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counted:
    """What was queued."""

    pairs: int
    groups: int
