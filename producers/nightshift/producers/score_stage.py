"""Plan the jobs of the score stage: first all pairs without a score, then equal and tied ones."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypedDict

from sqlalchemy import Connection

from nightshift.producers.job_sizes import job_size, score_jobs
from nightshift.schema.messages import ScorePayload
from nightshift.schema.params import RerankParams
from nightshift.schema.states import Stage
from nightshift.scoring.methods.registry import framings_of, tie_framing
from nightshift.stores.ledger import runs
from nightshift.stores.ledger.jobs import add_jobs, stage_rate
from nightshift.stores.ledger.run_types import RerankRun
from nightshift.stores.results import equal_pairs, pairs
from nightshift.stores.results.pairs import KindPair
from nightshift.stores.results.scores import hold_scores, refresh_statistics
from nightshift.stores.results.tied_pairs import tied_pairs

__all__ = ["begin_scoring", "continue_scoring"]

#: Times that another of several equal pairs is scored, where the one before it failed.
_MAX_EQUAL_ROUNDS = 2


def begin_scoring(connection: Connection, run: RerankRun) -> Stage:
    """Queue the pairs that have no score yet, of this run or another one."""
    params = run.params
    runs.refresh_statistics(connection, run.id, "candidate")
    _link_scores(connection, run)
    pairs.record_unscorable(
        connection, run.id, query_parts=params.query_parts, item_parts=params.item_parts
    )
    kinds = _record_without_prompt(connection, run)
    counts = pairs.count_pairs(connection, run)
    queued = _queue_pairs(connection, run, kinds, counts.unscored)
    equal = counts.unscored - queued.pairs
    plan = run.plan.model_copy(
        update={
            "pairs": counts.pairs,
            "reused": counts.reused,
            "unscorable": counts.unscorable,
            "equal": equal,
            "to_score": counts.pairs - counts.reused - counts.unscorable - equal,
            # A run that is taken up again adds to the groups of its first pass.
            "groups": (run.plan.groups or 0) + queued.groups,
        }
    )
    runs.move_to_stage(connection, run.id, Stage.SCORE, plan=plan)
    return Stage.SCORE


def continue_scoring(connection: Connection, run: RerankRun) -> bool:
    """Queue what follows from the scores so far: failed equal pairs first, then pairs that tie.

    Returns:
        Whether anything was queued; False ends the stage.
    """
    refresh_statistics(connection, run)
    if run.plan.equal and _share_equal(connection, run, run.plan.equal):
        return True
    return _ask_about_ties(connection, run)


def _share_equal(connection: Connection, run: RerankRun, equal: int) -> bool:
    """Give equal pairs their score; where the scored one failed, queue another of them."""
    params, plan, rounds = run.params, run.plan, run.control.equal_rounds
    _link_scores(connection, run)
    if rounds < _MAX_EQUAL_ROUNDS and params.scorer.score != "listwise":
        with_prompt, _ = _kinds_by_prompt(connection, run)
        queued = _queue_pairs(connection, run, with_prompt, equal)
        if queued.pairs:
            plan = plan.model_copy(
                update={
                    "equal": equal - queued.pairs,
                    "to_score": (plan.to_score or 0) + queued.pairs,
                    "groups": (plan.groups or 0) + queued.groups,
                }
            )
            control = run.control.model_copy(update={"equal_rounds": rounds + 1})
            runs.move_to_stage(connection, run.id, Stage.SCORE, plan=plan, control=control)
            return True
    equal_pairs.share_failures(
        connection, run.id, query_parts=params.query_parts, item_parts=params.item_parts
    )
    return False


def _link_scores(connection: Connection, run: RerankRun) -> None:
    """Give pairs without a score that of an equal pair, of this run or another."""
    hold_scores(connection)
    equal_pairs.link_scores(connection, run, **_shown(run.params))
    equal_pairs.excuse_scored_pairs(connection, run.id)


def _ask_about_ties(connection: Connection, run: RerankRun) -> bool:
    """Queue pairs whose scores tie, where the score holds no entropy; once a pass."""
    params = run.params
    if run.control.ties_asked or not params.quantum or tie_framing(params.scorer) is None:
        return False
    tied_groups = list(
        tied_pairs(
            connection,
            run,
            quantum=params.quantum,
            fusion=params.fusion,
            guard=params.tie_guard,
        )
    )
    n_tied = sum(len(item_ids) for _, item_ids in tied_groups)
    rate = stage_rate(connection, Stage.SCORE, run.scorer_fingerprint)
    jobs = score_jobs(tied_groups, job_size(n_tied, rate), "query", asks="ties")
    add_jobs(connection, run.id, Stage.SCORE, run.queue_of(Stage.SCORE), jobs)
    runs.move_to_stage(
        connection,
        run.id,
        Stage.SCORE,
        plan=run.plan.model_copy(update={"tied": n_tied}),
        control=run.control.model_copy(update={"ties_asked": True}),
    )
    return bool(tied_groups)


def _record_without_prompt(connection: Connection, run: RerankRun) -> list[KindPair]:
    """Record pairs that the framing has no prompt for: they would be planned forever.

    Returns:
        The kinds of content of the others.
    """
    framing, *_ = framings_of(run.params.scorer)
    with_prompt, without_prompt = _kinds_by_prompt(connection, run)
    if without_prompt:
        message = (
            f"framing {framing.name!r} has no prompt for what this run shows of this query and "
            "item: choose other --query-parts or --item-parts, or another framing"
        )
        pairs.record_without_prompt(
            connection,
            run.id,
            query_parts=run.params.query_parts,
            item_parts=run.params.item_parts,
            combinations=without_prompt,
            message=message,
        )
    return with_prompt


def _kinds_by_prompt(
    connection: Connection, run: RerankRun
) -> tuple[list[KindPair], list[KindPair]]:
    """Kinds of content of unscored pairs: those that the framing has a prompt for, and others."""
    framing, *_ = framings_of(run.params.scorer)
    with_prompt: list[KindPair] = []
    without_prompt: list[KindPair] = []
    kinds = pairs.kind_pairs(
        connection,
        run.id,
        query_parts=run.params.query_parts,
        item_parts=run.params.item_parts,
    )
    for kind in kinds:
        has_prompt = (kind.query, kind.item) in framing.templates
        (with_prompt if has_prompt else without_prompt).append(kind)
    return with_prompt, without_prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class _QueuedPairs:
    """Counts of the score jobs that were queued."""

    pairs: int
    groups: int


def _queue_pairs(
    connection: Connection, run: RerankRun, kinds: list[KindPair], n_pairs: int
) -> _QueuedPairs:
    """Queue unscored pairs, grouped by the side that the framing shares for their kinds.

    Args:
        connection: The transaction of the step.
        run: The run.
        kinds: Kinds of content of the pairs that the framing has a prompt for.
        n_pairs: About how many pairs there are.
    """
    rate = stage_rate(connection, Stage.SCORE, run.scorer_fingerprint)
    jobs = list(_jobs_by_side(connection, run, kinds, job_size(n_pairs, rate)))
    add_jobs(connection, run.id, Stage.SCORE, run.queue_of(Stage.SCORE), jobs)
    return _QueuedPairs(
        pairs=sum(job.n_units for job in jobs),
        groups=sum(len(job.groups) for job in jobs),
    )


def _jobs_by_side(
    connection: Connection, run: RerankRun, kinds: list[KindPair], size: int
) -> Iterator[ScorePayload]:
    framing, *_ = framings_of(run.params.scorer)
    shown = _shown(run.params)
    sides: tuple[Literal["query", "candidate"], ...] = ("query", "candidate")
    for side in sides:
        of_side = [kind for kind in kinds if framing.shared_side(kind.query, kind.item) == side]
        if of_side:
            groups = pairs.groups(
                connection, run.id, **shown, combinations=of_side, shared_side=side
            )
            yield from score_jobs(groups, size, side, lists=shown["lists"])


class _Shown(TypedDict):
    query_parts: str
    item_parts: str
    lists: bool


def _shown(params: RerankParams) -> _Shown:
    """The parts that the scorer is shown, and whether as lists."""
    return {
        "query_parts": params.query_parts,
        "item_parts": params.item_parts,
        "lists": params.scorer.score == "listwise",
    }
