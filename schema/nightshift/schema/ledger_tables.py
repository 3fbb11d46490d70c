"""Postgres: runs, jobs and failures. The ledger is the truth."""

from datetime import datetime
from typing import Any, get_args

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from nightshift.schema.params import MethodName
from nightshift.schema.states import (
    JobState,
    RunKind,
    RunState,
    Stage,
    SubjectKind,
)
from nightshift.schema.tables import Base, pg_enum

__all__ = [
    "Failure",
    "Job",
    "Run",
]


class Run(Base):
    """A run: an index build, a token build or a re-ranking of a query set."""

    __tablename__ = "run"
    __table_args__ = (
        CheckConstraint(
            "(kind = 'rerank') = (query_set_id IS NOT NULL)", name="rerank_has_queries"
        ),
        CheckConstraint(
            "(kind = 'index') = (scorer_fingerprint IS NULL)", name="rerank_has_scorer"
        ),
        CheckConstraint("(kind = 'tokens') = (index_id IS NULL)", name="tokens_have_no_index"),
        CheckConstraint(
            "(state IN ('done', 'failed', 'cancelled')) = (finished_at IS NOT NULL)", name="ended"
        ),
        CheckConstraint(
            "CASE kind WHEN 'index' THEN stage = 'embed' "
            "WHEN 'tokens' THEN stage IN ('codebook', 'tokens') "
            "ELSE stage IN ('embed', 'search', 'score', 'rank', 'answer') END",
            name="stage_of_kind",
        ),
        CheckConstraint("(kind = 'rerank') = (method IS NOT NULL)", name="rerank_has_method"),
        CheckConstraint(f"method IN {get_args(MethodName)}", name="method"),
        CheckConstraint("(scorer IS NULL) = (scorer_fingerprint IS NULL)", name="scorer_is_known"),
        CheckConstraint("priority BETWEEN 0 AND 9", name="priority"),
        {"comment": "One night's work: an index build, a token build or a re-ranking."},
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True, comment="Row id.")
    kind: Mapped[RunKind] = mapped_column(pg_enum(RunKind), comment="index, rerank or tokens.")
    state: Mapped[RunState] = mapped_column(
        pg_enum(RunState),
        server_default=RunState.RUNNING,
        index=True,
        comment="running, paused, done, failed or cancelled; a done or failed one may be taken "
        "up again.",
    )
    stage: Mapped[Stage] = mapped_column(
        pg_enum(Stage), comment="The stage in hand; of an ended run the last one."
    )
    catalog_id: Mapped[int] = mapped_column(
        ForeignKey("catalog.id", ondelete="CASCADE"), comment="The catalogue that it works on."
    )
    revision: Mapped[int] = mapped_column(
        Integer,
        comment="The revision of the catalogue that it reads, and no other.",
    )
    index_id: Mapped[int | None] = mapped_column(
        ForeignKey("index.id", ondelete="CASCADE"),
        comment="The index version that it fills or searches; empty for a token build.",
    )
    query_set_id: Mapped[int | None] = mapped_column(
        ForeignKey("query_set.id", ondelete="CASCADE"),
        comment="The queries that it ranks for; empty unless it is a re-ranking.",
    )
    token_set_id: Mapped[int | None] = mapped_column(
        ForeignKey("token_set.id", ondelete="SET NULL"),
        comment="The visual tokens that it makes, or that its score jobs read.",
    )
    method: Mapped[str | None] = mapped_column(
        comment="retllm, freeret or indexmllm; empty unless it is a re-ranking."
    )
    scorer: Mapped[str | None] = mapped_column(
        comment="The scorer, or the vision tower of a token build, as the operator named it; "
        "empty for an index build."
    )
    scorer_fingerprint: Mapped[str | None] = mapped_column(
        ForeignKey("model.fingerprint"), comment="Its row in model; empty for an index build."
    )
    params: Mapped[dict[str, Any]] = mapped_column(
        comment="IndexParams, RerankParams or TokenParams, frozen when it was planned."
    )
    priority: Mapped[int] = mapped_column(
        SmallInteger, server_default="5", comment="0 goes first, 9 last."
    )
    plan: Mapped[dict[str, Any]] = mapped_column(
        server_default="{}", comment="What planning found: items, pairs, groups, reused."
    )
    search_again: Mapped[bool] = mapped_column(
        server_default=text("false"),
        comment="Vectors were lost while it searched: the search is repeated.",
    )
    embed_rounds: Mapped[int] = mapped_column(
        SmallInteger, server_default="0", comment="How often lost vectors were embedded again."
    )
    equal_rounds: Mapped[int] = mapped_column(
        SmallInteger,
        server_default="0",
        comment="How often another of several equal pairs was given to the scorer.",
    )
    ties_asked: Mapped[bool] = mapped_column(
        server_default=text("false"),
        comment="Whether the scorer was asked about pairs that tie.",
    )
    planned_query: Mapped[int | None] = mapped_column(
        comment="While the score stage is planned: the last query whose pairs are prepared, 0 for "
        "none; empty while no planner is at work."
    )
    planned_pairs: Mapped[int] = mapped_column(
        server_default="0", comment="While the score stage is planned: pairs that have jobs."
    )
    created_at: Mapped[datetime] = mapped_column(
        server_default=func.now(), comment="When it was planned."
    )
    finished_at: Mapped[datetime | None] = mapped_column(
        comment="When it became done, failed or cancelled; empty before."
    )


class Job(Base):
    """A block of work; a message in Redis is only a doorbell for one of these rows."""

    __tablename__ = "job"
    __table_args__ = (
        PrimaryKeyConstraint("run_id", "id"),
        CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name="lease"),
        CheckConstraint(
            "state <> 'running' OR num_nulls(worker_id, started_at) = 0", name="running"
        ),
        # Jobs whose work others took over may have waited or ended before.
        CheckConstraint(
            "state = 'split' OR (state IN ('done', 'failed')) = (finished_at IS NOT NULL)",
            name="ended",
        ),
        CheckConstraint("n_units >= 0 AND attempt >= 0", name="counts"),
        CheckConstraint("n_failed BETWEEN 0 AND n_units", name="n_failed"),
        Index(
            "ix_job_waiting",
            "id",
            postgresql_where=text("state = 'queued'"),
        ),
        Index("ix_job_leased", "lease_until", postgresql_where=text("state = 'running'")),
        Index("ix_job_progress", "stage", "state"),
        Index("ix_job_started", "stage", "started_at"),
        Index("ix_job_finished", "stage", "finished_at"),
        {
            "comment": "A block of work, claimed with a lease and a fencing token.",
            "postgresql_partition_by": "LIST (run_id)",
        },
    )

    run_id: Mapped[int] = mapped_column(
        ForeignKey("run.id", ondelete="CASCADE"),
        comment="The run that it is part of; its partition.",
    )
    id: Mapped[int] = mapped_column(comment="Counts from 1 in each run.")
    stage: Mapped[Stage] = mapped_column(pg_enum(Stage), comment="What is done to its units.")
    state: Mapped[JobState] = mapped_column(
        pg_enum(JobState),
        server_default=JobState.QUEUED,
        comment="queued, running, done, failed (a lone unit after its last attempt), or split: "
        "other jobs carry its work.",
    )
    queue: Mapped[str] = mapped_column(comment="stage, or stage.model fingerprint")
    payload: Mapped[dict[str, Any]] = mapped_column(comment="Ids of what it works on.")
    n_units: Mapped[int] = mapped_column(comment="Items, queries or pairs.")
    attempt: Mapped[int] = mapped_column(
        SmallInteger,
        server_default="0",
        comment="Attempts that count; outages and hand-backs at shutdown do not.",
    )
    token: Mapped[int] = mapped_column(
        server_default="0", comment="Fencing token of the last claim."
    )
    worker_id: Mapped[str | None] = mapped_column(
        comment="Who holds it or ended it; empty while it waits."
    )
    lease_until: Mapped[datetime | None] = mapped_column(
        comment="When it is taken from a worker without progress; empty unless it runs."
    )
    not_before: Mapped[datetime] = mapped_column(
        server_default=func.now(),
        comment="Not claimed earlier: the back-off after a failed attempt.",
    )
    sent_at: Mapped[datetime | None] = mapped_column(comment="When its doorbell was last rung.")
    started_at: Mapped[datetime | None] = mapped_column(
        comment="When the last attempt began; empty before the first."
    )
    finished_at: Mapped[datetime | None] = mapped_column(
        comment="When it became done or failed or was cut in two; empty before, and where other "
        "jobs took over what waited."
    )
    n_failed: Mapped[int] = mapped_column(
        server_default="0", comment="Units that have a failure in place of a result."
    )
    error: Mapped[str | None] = mapped_column(
        comment="Why the last attempt ended or was handed back; empty where it went well."
    )
    outage_since: Mapped[datetime | None] = mapped_column(
        comment="When the first outage sent it back, or the job that it is a half of; empty where "
        "none did."
    )


class Failure(Base):
    """A failure or notice about one thing, with its reason."""

    __tablename__ = "failure"
    __table_args__ = (
        CheckConstraint("num_nonnulls(run_id, import_id, query_set_id) = 1", name="belongs_to_one"),
        CheckConstraint(
            "CASE WHEN run_id IS NULL THEN stage = 'import' "
            f"ELSE stage IN {tuple(stage.value for stage in Stage)} END",
            name="stage_of_owner",
        ),
        Index(
            "uq_failure_run_subject",
            "run_id",
            "stage",
            "subject_kind",
            "subject_id",
            unique=True,
            postgresql_where=text("run_id IS NOT NULL"),
        ),
        {"comment": "What went wrong, with which thing, and why."},
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True, comment="Row id.")
    run_id: Mapped[int | None] = mapped_column(
        ForeignKey("run.id", ondelete="CASCADE"),
        comment="Where it happened: exactly one of run, import and query set is given.",
    )
    import_id: Mapped[int | None] = mapped_column(
        ForeignKey("catalog_import.id", ondelete="CASCADE"),
        index=True,
        comment="The import of items in which it happened.",
    )
    query_set_id: Mapped[int | None] = mapped_column(
        ForeignKey("query_set.id", ondelete="CASCADE"),
        index=True,
        comment="The query set whose import it happened in.",
    )
    stage: Mapped[str] = mapped_column(comment="import, or the stage of a run")
    subject_kind: Mapped[SubjectKind] = mapped_column(
        pg_enum(SubjectKind),
        comment="What subject_id names: a line, an item, a query, a pair, or a job or run as a "
        "whole.",
    )
    subject_id: Mapped[str] = mapped_column(
        comment="Line number, external id, or query id → item id."
    )
    reason: Mapped[str] = mapped_column(comment="Stable code, such as image_unreadable.")
    message: Mapped[str] = mapped_column(comment="What happened and what to do.")
    fatal: Mapped[bool] = mapped_column(
        server_default=text("true"), comment="False for a notice, such as a cut text."
    )
    created_at: Mapped[datetime] = mapped_column(
        server_default=func.now(), comment="When it was first recorded."
    )
