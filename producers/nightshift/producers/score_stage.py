"""Plan what follows from the scores of a run: failed equal pairs, then pairs that tie."""

from dataclasses import dataclass

from sqlalchemy import Connection

from nightshift.producers.job_sizes import job_size, score_jobs
from nightshift.producers.score_pairs import kinds_by_prompt, shown
from nightshift.producers.score_planning import jobs_by_side
from nightshift.schema.states import Stage
from nightshift.scoring.methods.registry import tie_framing
from nightshift.stores.ledger import runs
from nightshift.stores.ledger.jobs import add_jobs, stage_rate
from nightshift.stores.ledger.run_types import RerankRun
from nightshift.stores.results import equal_pairs
from nightshift.stores.results.pairs import KindPair
from nightshift.stores.results.scores import hold_scores, refresh_statistics
from nightshift.stores.results.tied_pairs import tied_pairs

__all__ = ["continue_scoring"]

#: Times that another of several equal pairs is scored, where the one before it failed.
_MAX_EQUAL_ROUNDS = 2


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
        with_prompt, _ = kinds_by_prompt(connection, run)
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
    equal_pairs.link_scores(connection, run, **shown(run.params))
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
    jobs = list(jobs_by_side(connection, run, kinds, job_size(n_pairs, rate)))
    add_jobs(connection, run.id, Stage.SCORE, run.queue_of(Stage.SCORE), jobs)
    return _QueuedPairs(
        pairs=sum(job.n_units for job in jobs),
        groups=sum(len(job.groups) for job in jobs),
    )
