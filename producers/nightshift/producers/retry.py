"""`retry-failed`: repeat the failed work of an ended run, and the stages that follow from it."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from nightshift.producers.job_sizes import block_jobs, job_size
from nightshift.schema.errors import ConflictError
from nightshift.schema.messages import Payload
from nightshift.schema.states import RunState, Stage
from nightshift.stores.catalog.revisions import newest_revision
from nightshift.stores.index import indexes, reconcile
from nightshift.stores.ledger import reopening
from nightshift.stores.ledger.jobs import add_jobs
from nightshift.stores.ledger.run_types import AnyRun, RerankRun
from nightshift.stores.postgres.database import Database
from nightshift.stores.results.pairs import queries_to_search
from nightshift.stores.results.scores import forget_lost_scores

__all__ = ["Retried", "redo_incomplete", "retry_failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    """The work that is repeated."""

    run_id: int
    #: The stage at which the run goes on; None where nothing had failed.
    stage: Stage | None
    #: Items, queries or pairs by stage.
    units: dict[Stage, int]


def retry_failed(database: Database, run_id: int) -> Retried:
    """Queue the failed work of a run that is done or failed; its other results stay.

    The stages after it follow: a query that can be searched now is scored and ranked, and all
    rankings of the run are made once more in the end. All attempts count from the beginning.

    Raises:
        NotFoundError: Where there is no such run.
        ConflictError: Where it has not ended yet, or was cancelled.
    """
    with database.begin() as connection:
        run = reopening.lock_ended(connection, run_id)
        if isinstance(run, RerankRun):
            forget_lost_scores(connection, run)
        payloads_by_stage = _take_failed(connection, run)
        stages = [*payloads_by_stage, *([run.stage] if run.state is RunState.FAILED else [])]
        if not stages:
            return Retried(run_id=run.id, stage=None, units={})
        first = min(stages, key=list(Stage).index)
        units = {
            stage: sum(payload.n_units for payload in payloads)
            for stage, payloads in payloads_by_stage.items()
        }
        if run.state is RunState.FAILED:
            reopening.forget_run_failure(connection, run.id)
        later = list(Stage)[list(Stage).index(first) + 1 :]
        # The dispatcher plans them again, from the results of the first stage.
        reopening.supersede_waiting(connection, run.id, later)
        waiting = reopening.reset_waiting(connection, run.id)
        if waiting:
            units[first] = units.get(first, 0) + waiting
        payloads = payloads_by_stage.get(first, [])
        if first is Stage.SEARCH and (deleted := _deleted_vectors(connection, run)):
            # The search is planned when they are back; it covers the queries without candidates.
            first, payloads = Stage.EMBED, list(block_jobs(deleted, job_size(len(deleted), None)))
            reopening.supersede_waiting(connection, run.id, [Stage.SEARCH])
        add_jobs(connection, run.id, first, run.queue_of(first), payloads)
        reopening.reopen(connection, run.id, first)
    return Retried(run_id=run.id, stage=first, units=units)


def redo_incomplete(database: Database, run_id: int) -> None:
    """Take up a done re-ranking run that lacks results: search, score and rank what is missing.

    Raises:
        NotFoundError: Where there is no such run.
        ConflictError: Where it has not ended yet, or was cancelled.
    """
    with database.begin() as connection:
        run = reopening.lock_ended(connection, run_id)
        if not isinstance(run, RerankRun):
            raise ConflictError(f"run {run_id} ranks nothing: build its index or tokens again")
        forget_lost_scores(connection, run)
        _take_failed(connection, run)  # planning from the search on covers them
        deleted = _deleted_vectors(connection, run)
        stage = Stage.EMBED if deleted else Stage.SEARCH
        ids = deleted or queries_to_search(connection, run.id, run.query_set_id)
        jobs = block_jobs(ids, job_size(len(ids), None))
        add_jobs(connection, run.id, stage, run.queue_of(stage), jobs)
        reopening.reopen(connection, run.id, stage)


def _deleted_vectors(connection: Connection, run: AnyRun) -> list[int]:
    """Items of an older revision whose vectors were deleted since the run searched.

    Nobody needed them any more; a search without them would miss these items.
    """
    if not isinstance(run, RerankRun):
        return []
    if run.revision == newest_revision(connection, run.catalog_id):
        return []
    index = indexes.get_index(connection, run.index_id)
    lacking = reconcile.items_without_vector(connection, index, revision=run.revision)
    return lacking if len(lacking) > (run.plan.not_indexed or 0) else []


def _take_failed(connection: Connection, run: AnyRun) -> dict[Stage, Sequence[Payload]]:
    """Payloads of jobs for the failed work, by stage; stages without a failure are left out."""
    payloads_by_stage: dict[Stage, Sequence[Payload]] = {}
    for stage in Stage:
        if isinstance(run, RerankRun) and stage is Stage.EMBED:
            continue  # its items belong to the index: the next index run embeds them
        if isinstance(run, RerankRun) and stage is Stage.SCORE:
            payloads: Sequence[Payload] = reopening.take_failed_pairs(connection, run)
        else:
            ids = reopening.take_failed_subjects(connection, run, stage)
            payloads = list(block_jobs(ids, job_size(len(ids), None)))
        if payloads:
            payloads_by_stage[stage] = payloads
    return payloads_by_stage
