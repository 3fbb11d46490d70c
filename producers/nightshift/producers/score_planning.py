"""Plan the score stage in many short transactions: the run can be paused between any two of them.

First slices of queries are prepared: known scores are linked, and pairs that cannot be scored are
recorded. Then the other pairs are read in one order, and become jobs some at a time. The run keeps
how far both have come, so that another planner goes on there. Workers get the jobs once all are
planned.
"""

from collections.abc import Callable, Iterator
from typing import Literal, TypeVar

from sqlalchemy import Connection

from nightshift.producers.fence import Fence
from nightshift.producers.job_sizes import job_size, score_jobs
from nightshift.producers.score_pairs import kinds_by_prompt, record_without_prompt, shown
from nightshift.schema.messages import ScorePayload
from nightshift.schema.plans import RerankControl
from nightshift.schema.states import Stage
from nightshift.scoring.methods.registry import framings_of
from nightshift.stores.ledger import runs
from nightshift.stores.ledger.jobs import add_jobs, stage_rate
from nightshift.stores.ledger.reopening import supersede_waiting
from nightshift.stores.ledger.run_types import RerankRun
from nightshift.stores.postgres.database import Database
from nightshift.stores.results import equal_pairs, pairs
from nightshift.stores.results.pairs import KindPair
from nightshift.stores.results.scores import hold_scores
from nightshift.stores.results.slices import last_query_of_slice

__all__ = ["begin_planning", "jobs_by_side", "plan_scoring"]

#: Pairs that one transaction prepares or queues; it takes a second or less.
_STEP_PAIRS = 50_000

_Result = TypeVar("_Result")


def begin_planning(connection: Connection, run: RerankRun) -> None:
    """Note that the score stage of a run is to be planned, after its search."""
    supersede_waiting(connection, run.id, [Stage.SCORE])
    control = run.control.model_copy(update={"planned_query": 0, "planned_pairs": 0})
    runs.move_to_stage(connection, run.id, run.stage, control=control)


def plan_scoring(
    database: Database, run_id: int, fence: Fence, *, step_pairs: int = _STEP_PAIRS
) -> Stage | None:
    """Plan the score stage of a run, or go on where another planner stopped.

    Args:
        database: Postgres.
        run_id: A run whose planning has begun.
        fence: Called last in each transaction; raises where another dispatcher leads by now.
        step_pairs: Pairs that one transaction prepares or queues, at most but for a single query
            or job.

    Returns:
        The stage that begins; None where the run was paused or cancelled meanwhile, or another
        planner has it.
    """
    steps = _Steps(database, run_id, fence)
    try:
        _prepare(steps, step_pairs)
        _queue(steps, step_pairs)
    except _InterruptedPlanError:
        return None
    return Stage.SCORE


class _InterruptedPlanError(Exception):
    """The run is not this planner's: it was paused or cancelled, or another one has it."""


class _Steps:
    """Transactions that each lock the run, and end with the fence."""

    def __init__(self, database: Database, run_id: int, fence: Fence) -> None:
        self.database = database
        self.run_id = run_id
        self._fence = fence

    def do(self, step: Callable[[Connection, RerankRun], _Result]) -> _Result:
        """Do a step in a transaction of its own.

        Raises:
            _InterruptedPlanError: The run is not this planner's.
        """
        with self.database.begin() as connection:
            run = runs.lock_run(connection, self.run_id)
            if not isinstance(run, RerankRun) or not run.control.is_planning:
                raise _InterruptedPlanError
            result = step(connection, run)
            self._fence(connection)
        return result


def _prepare(steps: _Steps, step_pairs: int) -> None:
    """Link known scores and record pairs that cannot be scored, a slice of queries at a time."""
    with steps.database.begin() as connection:
        runs.refresh_statistics(connection, steps.run_id, "candidate")

    def prepare_slice(connection: Connection, run: RerankRun) -> bool:
        after = run.control.planned_query or 0
        size = max(1, step_pairs // run.params.top_k)
        last = last_query_of_slice(connection, run.id, after, size)
        if last is None:
            return False
        queries = (after + 1, last)
        params = run.params
        hold_scores(connection)
        equal_pairs.link_scores(connection, run, **shown(params), queries=queries)
        pairs.record_unscorable(
            connection,
            run.id,
            query_parts=params.query_parts,
            item_parts=params.item_parts,
            queries=queries,
        )
        _keep(connection, run, planned_query=last)
        return True

    while steps.do(prepare_slice):
        pass
    steps.do(lambda connection, run: equal_pairs.excuse_scored_pairs(connection, run.id))


def _queue(steps: _Steps, step_pairs: int) -> None:
    """Queue the pairs that need a score, and begin the stage."""
    # Reading takes as long as the run is large, so it is done without the lock.
    with steps.database.begin() as reader:
        run = runs.get_run(reader, steps.run_id)
        if not isinstance(run, RerankRun) or not run.control.is_planning:
            raise _InterruptedPlanError
        with_prompt, without_prompt = kinds_by_prompt(reader, run)
        if without_prompt:
            steps.do(lambda connection, run: record_without_prompt(connection, run, without_prompt))
        counts = pairs.count_pairs(reader, run)
        rate = stage_rate(reader, Stage.SCORE, run.scorer_fingerprint)
        size = job_size(counts.unscored, rate)
        jobs = jobs_by_side(reader, run, with_prompt, size, skip=run.control.planned_pairs)
        for batch in _batches(jobs, step_pairs):
            steps.do(lambda connection, run, batch=batch: _add(connection, run, batch))  # type: ignore[misc]

    def begin(connection: Connection, run: RerankRun) -> None:
        equal = counts.unscored - run.control.planned_pairs
        plan = run.plan.model_copy(
            update={
                "pairs": counts.pairs,
                "reused": counts.reused,
                "unscorable": counts.unscorable,
                "equal": equal,
                "to_score": counts.pairs - counts.reused - counts.unscorable - equal,
            }
        )
        control = run.control.model_copy(update={"planned_query": None, "planned_pairs": 0})
        runs.move_to_stage(connection, run.id, Stage.SCORE, plan=plan, control=control)

    steps.do(begin)


def _add(connection: Connection, run: RerankRun, batch: list[ScorePayload]) -> None:
    add_jobs(connection, run.id, Stage.SCORE, run.queue_of(Stage.SCORE), batch)
    n_pairs = sum(job.n_units for job in batch)
    # A run that is taken up again adds to the groups of its first pass.
    groups = (run.plan.groups or 0) + sum(len(job.groups) for job in batch)
    plan = run.plan.model_copy(update={"groups": groups})
    control = run.control.model_copy(update={"planned_pairs": run.control.planned_pairs + n_pairs})
    runs.move_to_stage(connection, run.id, run.stage, plan=plan, control=control)


def _keep(connection: Connection, run: RerankRun, *, planned_query: int) -> None:
    control: RerankControl = run.control.model_copy(update={"planned_query": planned_query})
    runs.move_to_stage(connection, run.id, run.stage, control=control)


def jobs_by_side(
    connection: Connection, run: RerankRun, kinds: list[KindPair], size: int, *, skip: int = 0
) -> Iterator[ScorePayload]:
    """Jobs of unscored pairs, grouped by the side that the framing shares for their kinds.

    Args:
        connection: Read while the jobs are.
        run: The run.
        kinds: Kinds of content of the pairs that the framing has a prompt for.
        size: Pairs of a job.
        skip: Pairs at the beginning that have jobs already.
    """
    framing, *_ = framings_of(run.params.scorer)
    of_run = shown(run.params)
    sides: tuple[Literal["query", "candidate"], ...] = ("query", "candidate")
    for side in sides:
        of_side = [kind for kind in kinds if framing.shared_side(kind.query, kind.item) == side]
        if of_side:
            groups = pairs.groups(
                connection, run.id, **of_run, combinations=of_side, shared_side=side
            )
            rest = _Rest(skip)
            yield from score_jobs(rest.of(groups), size, side, lists=of_run["lists"])
            skip = rest.skip


class _Rest:
    """The pairs of some groups without the first of them.

    Args:
        skip: Pairs to leave out; counted down.
    """

    def __init__(self, skip: int) -> None:
        self.skip = skip

    def of(self, groups: Iterator[tuple[int, list[int]]]) -> Iterator[tuple[int, list[int]]]:
        """The groups without the pairs to leave out."""
        for shared, others in groups:
            skipped = min(self.skip, len(others))
            self.skip -= skipped
            if skipped < len(others):
                yield shared, others[skipped:]


def _batches(jobs: Iterator[ScorePayload], step_pairs: int) -> Iterator[list[ScorePayload]]:
    batch: list[ScorePayload] = []
    n_pairs = 0
    for job in jobs:
        batch.append(job)
        n_pairs += job.n_units
        if n_pairs >= step_pairs:
            yield batch
            batch, n_pairs = [], 0
    if batch:
        yield batch
