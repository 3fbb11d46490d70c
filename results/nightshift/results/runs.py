"""Runs as an operator sees them: progress, throughput, time left, failures and lineage."""

from collections import Counter
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from nightshift.results.run_json import run_json
from nightshift.schema.states import RunKind, RunState, Stage, TallyName
from nightshift.stores import failures
from nightshift.stores.failures import FailureCount, FailureRow
from nightshift.stores.ledger import run_status, runs, workers
from nightshift.stores.ledger.counters import tallies_of_run
from nightshift.stores.ledger.run_status import StageCounts
from nightshift.stores.ledger.run_types import AnyRun, RerankRun, TokenRun
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
    """The progress of one stage; a unit is an item, a query or a pair."""

    stage: Stage
    #: `waiting`, `running` or `done`; a stage is planned when the one before it is done.
    state: str
    jobs: int = 0
    jobs_done: int = 0
    jobs_running: int = 0
    jobs_failed: int = 0
    units: int = 0
    #: Units of ended jobs, including failed units.
    units_done: int = 0
    units_failed: int = 0
    #: Over the last minute while it runs, over all its time afterwards; None if unknown.
    units_per_s: float | None = None
    #: Seconds left at that rate; None if unknown.
    left_s: float | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProgress:
    """A run and its stages, in their order."""

    run: AnyRun
    stages: tuple[StageProgress, ...]
    #: Workers that reported lately.
    workers_alive: int

    @property
    def ended(self) -> bool:
        """True if the run is done, failed or cancelled."""
        return self.run.state not in (RunState.RUNNING, RunState.PAUSED)

    def to_json(self) -> dict[str, Any]:
        """The fields by name, the run as one flat object."""
        return {
            "run": run_json(self.run),
            "stages": self.stages,
            "workers_alive": self.workers_alive,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDetails:
    """A run with its failures, models and reuse factors."""

    progress: RunProgress
    failures: tuple[FailureCount, ...]
    #: None for a run that makes visual tokens.
    embedder: ModelRow | None
    scorer: ModelRow | None
    #: Planned pairs per shared prefix, the factor that grouping saves; None before scoring.
    pairs_per_group: float | None
    #: Scored pairs per prefix forward; the engine may run a prefix twice for other pairs of its
    #: group. None before the first score job ended.
    pairs_per_prefix: float | None
    #: Images that score jobs sent through the vision tower; None before the first ended.
    pictures_seen: int | None
    #: `IndexSummary.top_share` for the vectors that this run made.
    top_share: float | None
    #: Queries with a ranking; None for a run that ranks nothing.
    coverage: Coverage | None

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, "progress": self.progress.to_json()}


def list_progress(database: Database, limit: int) -> list[RunProgress]:
    """The progress of the newest runs, newest first."""
    with database.begin() as connection:
        alive = workers.count_alive(connection)
        return [_progress(connection, run, alive) for run in runs.list_runs(connection, limit)]


def progress(database: Database, run_id: int) -> RunProgress:
    """The progress of one run.

    Raises:
        NotFoundError: If there is no such run.
    """
    with database.begin() as connection:
        run = runs.get_run(connection, run_id)
        return _progress(connection, run, workers.count_alive(connection))


def show_run(database: Database, run_id: int) -> RunDetails:
    """A run with its failures by reason and its lineage.

    Raises:
        NotFoundError: If there is no such run.
    """
    current = progress(database, run_id)
    run = current.run
    with database.begin() as connection:
        embedder, scorer = _models(run)
        count = tallies_of_run(connection, run_id).get
        n_images = count(TallyName.PICTURES)
        return RunDetails(
            progress=current,
            failures=tuple(failures.count_failures(connection, run_id)),
            embedder=get_model(connection, embedder) if embedder else None,
            scorer=get_model(connection, scorer) if scorer else None,
            pairs_per_group=(
                _ratio(run.plan.to_score, run.plan.groups) if isinstance(run, RerankRun) else None
            ),
            pairs_per_prefix=_ratio(count(TallyName.PAIRS), count(TallyName.PREFIXES)),
            pictures_seen=None if n_images is None else round(n_images),
            top_share=_ratio(count(TallyName.TOP_SHARE), count(TallyName.VECTORS)),
            coverage=coverage_of(connection, run) if isinstance(run, RerankRun) else None,
        )


def failed_by_reason(database: Database, run_id: int) -> Counter[str]:
    """Reason → failed items, queries and pairs of a run, and rows of its file of queries.

    Notices are not counted. A run that failed as a whole adds one.
    """
    with database.begin() as connection:
        counts = failures.count_failures(connection, run_id)
    reasons = Counter[str]()
    for failure in counts:
        if failure.fatal:
            reasons[failure.reason] += failure.count
    return reasons


def list_failures(database: Database, run_id: int, limit: int | None = None) -> list[FailureRow]:
    """Failures and notices of a run and of its file of queries, oldest first.

    Raises:
        NotFoundError: If there is no such run.
    """
    with database.begin() as connection:
        runs.get_run(connection, run_id)
        return failures.list_failures(connection, run_id, limit)


def _models(run: AnyRun) -> tuple[str | None, str | None]:
    """Fingerprints of the embedder and of the scorer or vision tower."""
    if isinstance(run, TokenRun):
        return None, run.vision_fingerprint
    return run.embedder_fingerprint, run.scorer_fingerprint if isinstance(run, RerankRun) else None


def _progress(connection: Connection, run: AnyRun, alive: int) -> RunProgress:
    by_stage = {counts.stage: counts for counts in run_status.stage_counts(connection, run.id)}
    stages = tuple(
        _stage(run, stage, by_stage.get(stage))
        for stage in _STAGES[run.kind]
        # Rare stages are shown only when they have jobs: embedding lost vectors again, training
        # a codebook, answering.
        if stage not in (Stage.EMBED, Stage.CODEBOOK, Stage.ANSWER)
        or run.kind is RunKind.INDEX
        or stage in by_stage
    )
    return RunProgress(run=run, stages=stages, workers_alive=alive)


def _stage(run: AnyRun, stage: Stage, counts: StageCounts | None) -> StageProgress:
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


def _ratio(numerator: float | None, denominator: float | None) -> float | None:
    return numerator / denominator if numerator is not None and denominator else None
