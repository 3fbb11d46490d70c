"""Runs as an operator sees them: progress, throughput, time left, failures and lineage."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from nightshift.schema.states import RunKind, RunState, Stage, TallyName
from nightshift.stores import failures
from nightshift.stores.failures import FailureCount, FailureRow
from nightshift.stores.ledger import run_status, runs, workers
from nightshift.stores.ledger.run_status import StageCounts
from nightshift.stores.ledger.runs import RunRow
from nightshift.stores.ledger.tallies import tallies_of_run
from nightshift.stores.models import ModelRow, get_model
from nightshift.stores.postgres.database import Database
from nightshift.stores.results.coverage import Coverage, coverage_of

__all__ = [
    "RunDetails",
    "RunProgress",
    "StageProgress",
    "failed_by_reason",
    "list_failures",
    "list_progress",
    "progress",
    "show_run",
]

_STAGES = {
    RunKind.INDEX: (Stage.EMBED,),
    RunKind.RERANK: (Stage.EMBED, Stage.SEARCH, Stage.SCORE, Stage.RANK, Stage.ANSWER),
    RunKind.TOKENS: (Stage.CODEBOOK, Stage.TOKENS),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StageProgress:
    """How far one stage is; a unit is an item, a query or a pair."""

    stage: Stage
    #: `waiting`, `running` or `done`; a stage is planned when the one before it is done.
    state: str
    jobs: int = 0
    jobs_done: int = 0
    jobs_running: int = 0
    jobs_failed: int = 0
    units: int = 0
    #: Units of jobs that ended, failed ones among them.
    units_done: int = 0
    units_failed: int = 0
    #: Over the last minute while it runs, over its whole life afterwards; None if not known.
    units_per_s: float | None = None
    #: Seconds at that rate; None if not known.
    left_s: float | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProgress:
    """A run and its stages, in their order."""

    run: RunRow
    stages: tuple[StageProgress, ...]
    #: Workers that reported lately; a run that waits for its first worker is told so.
    workers_alive: int

    @property
    def ended(self) -> bool:
        """Whether it is done, failed or cancelled."""
        return self.run.state not in (RunState.RUNNING, RunState.PAUSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDetails:
    """Everything that explains a run."""

    progress: RunProgress
    failures: tuple[FailureCount, ...]
    #: None for a run that makes visual tokens.
    embedder: ModelRow | None
    scorer: ModelRow | None
    #: Pairs planned for each shared prefix, the factor that grouping saves; None before scoring.
    pairs_per_group: float | None
    #: Pairs read for each prefix that the engine ran: it may run one again for other pairs of its
    #: group. None where no job has told.
    pairs_per_prefix: float | None
    #: How often a score job sent a picture through the vision tower; None where no job has told.
    pictures_seen: int | None
    #: As `IndexSummary.top_share`, of the vectors that this run made.
    top_share: float | None
    #: How many queries have a ranking; None for a run that ranks nothing.
    coverage: Coverage | None


def list_progress(database: Database, limit: int) -> list[RunProgress]:
    """The newest runs first."""
    with database.begin() as connection:
        alive = workers.count_alive(connection)
        return [_progress(connection, run, alive) for run in runs.list_runs(connection, limit)]


def progress(database: Database, run_id: int) -> RunProgress:
    """How far one run is.

    Raises:
        NotFoundError: Where there is none.
    """
    with database.begin() as connection:
        run = runs.get_run(connection, run_id)
        return _progress(connection, run, workers.count_alive(connection))


def show_run(database: Database, run_id: int) -> RunDetails:
    """A run with its failures by reason and its lineage.

    Raises:
        NotFoundError: Where there is none.
    """
    current = progress(database, run_id)
    run = current.run
    with database.begin() as connection:
        embedder, scorer = run.embedder_fingerprint, run.scorer_fingerprint
        told = tallies_of_run(connection, run_id)
        pictures = told.get(TallyName.PICTURES)
        return RunDetails(
            progress=current,
            failures=tuple(failures.count_failures(connection, run_id)),
            embedder=get_model(connection, embedder) if embedder else None,
            scorer=get_model(connection, scorer) if scorer else None,
            pairs_per_group=_ratio(run.plan.get("to_score"), run.plan.get("groups")),
            pairs_per_prefix=_ratio(told.get(TallyName.PAIRS), told.get(TallyName.PREFIXES)),
            pictures_seen=None if pictures is None else round(pictures),
            top_share=_ratio(told.get(TallyName.TOP_SHARE), told.get(TallyName.VECTORS)),
            coverage=coverage_of(connection, run) if run.kind is RunKind.RERANK else None,
        )


def failed_by_reason(database: Database, run_id: int) -> Counter[str]:
    """How many items, queries and pairs of a run failed, and rows of its file of queries, and why.

    Notices are not counted; a run that failed as a whole counts once more.
    """
    with database.begin() as connection:
        found = failures.count_failures(connection, run_id)
    reasons = Counter[str]()
    for one in found:
        if one.fatal:
            reasons[one.reason] += one.count
    return reasons


def list_failures(database: Database, run_id: int, limit: int | None = None) -> list[FailureRow]:
    """What went wrong in a run and in reading its queries, oldest first.

    Raises:
        NotFoundError: Where there is no such run.
    """
    with database.begin() as connection:
        runs.get_run(connection, run_id)
        return failures.list_failures(connection, run_id, limit)


def _progress(connection: Connection, run: RunRow, alive: int) -> RunProgress:
    counts = {one.stage: one for one in run_status.stage_counts(connection, run.id)}
    stages = tuple(
        _stage(run, stage, counts.get(stage))
        for stage in _STAGES[run.kind]
        # What a run seldom has to do is not worth a line: embedding again what Milvus lost,
        # training a codebook, answering.
        if stage not in (Stage.EMBED, Stage.CODEBOOK, Stage.ANSWER)
        or run.kind is RunKind.INDEX
        or stage in counts
    )
    return RunProgress(run=run, stages=stages, workers_alive=alive)


def _stage(run: RunRow, stage: Stage, counts: StageCounts | None) -> StageProgress:
    if counts is None:
        # A stage may have had nothing to do, such as scoring when every pair was reused.
        order = _STAGES[run.kind]
        passed = run.state is RunState.DONE or order.index(stage) < order.index(run.stage)
        return StageProgress(stage=stage, state="done" if passed else "waiting")
    left = counts.queued + counts.running
    rate = _rate(counts)
    return StageProgress(
        stage=stage,
        state="running" if left else "done",
        jobs=left + counts.done + counts.failed,
        jobs_done=counts.done,
        jobs_running=counts.running,
        jobs_failed=counts.failed,
        units=counts.units,
        units_done=counts.units - counts.units_left,
        units_failed=counts.units_failed,
        units_per_s=rate,
        left_s=_ratio(counts.units_left, rate) if left and run.state is RunState.RUNNING else None,
        started_at=counts.started_at,
        finished_at=counts.finished_at,
    )


def _rate(counts: StageCounts) -> float | None:
    if counts.finished_at is None and counts.units_recent:
        return _ratio(counts.units_recent, counts.recent_s)
    return _ratio(counts.units_done, counts.elapsed_s)


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None
