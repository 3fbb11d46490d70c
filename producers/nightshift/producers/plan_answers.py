"""Plan answers to queries that a run has ranked."""

from dataclasses import dataclass

from nightshift.producers.job_sizes import block_jobs
from nightshift.schema.states import RunState, Stage
from nightshift.stores.ledger import reopening
from nightshift.stores.ledger.jobs import add_jobs
from nightshift.stores.postgres.database import Database
from nightshift.stores.results import answers
from nightshift.stores.results.rankings import find_query

__all__ = ["PlannedAnswers", "plan_answers"]

# Generating takes seconds a query, not milliseconds.
_QUERIES_PER_JOB = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedAnswers:
    """The queries and jobs that planning queued."""

    run_id: int
    #: 0 where every query asked for has an answer, or a job that will give it one.
    n_queries: int


def plan_answers(database: Database, run_id: int, query: str | None = None) -> PlannedAnswers:
    """Queue queries of a done run that have no answer yet; its rankings stay as they are.

    Args:
        database: Postgres.
        run_id: The run.
        query: Only this one, by its id in the file of queries.

    Raises:
        NotFoundError: Where there is no such run or query.
        ConflictError: Where the run has not ranked all its queries.
    """
    with database.begin() as connection:
        run = answers.lock_ranked(connection, run_id)
        if query is not None:
            find_query(connection, run_id, query)
        waiting = answers.unanswered(connection, run_id, query)
        if waiting:
            queue = run.queue_of(Stage.ANSWER)
            jobs = block_jobs(waiting, _QUERIES_PER_JOB)
            add_jobs(connection, run_id, Stage.ANSWER, queue, jobs)
            if run.state is not RunState.RUNNING:
                reopening.reopen(connection, run_id, Stage.ANSWER)
    return PlannedAnswers(run_id=run_id, n_queries=len(waiting))
