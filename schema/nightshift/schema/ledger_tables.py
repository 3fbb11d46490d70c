"""Postgres: runs, jobs, leases, workers and failures. The ledger is the truth, Redis the wire."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Double,
    ForeignKey,
    Identity,
    Index,
    PrimaryKeyConstraint,
    SmallInteger,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from nightshift.schema.states import (
    JobState,
    RunKind,
    RunState,
    Stage,
    SubjectKind,
    TallyName,
)
from nightshift.schema.tables import Base, pg_enum

__all__ = [
    "Failure",
    "Job",
    "JobCount",
    "JobDelta",
    "Lease",
    "Run",
    "Tally",
    "TallyDelta",
    "Worker",
]


class Run(Base):
    """One night's work: an index build, a token build or a re-ranking of a query set."""

    __tablename__ = "run"
    __table_args__ = (
        CheckConstraint(
            "(kind = 'rerank') = (query_set_id IS NOT NULL)", name="rerank_has_queries"
        ),
        CheckConstraint(
            "(kind = 'index') = (scorer_fingerprint IS NULL)", name="rerank_has_scorer"
        ),
        CheckConstraint("(kind = 'tokens') = (index_id IS NULL)", name="tokens_have_no_index"),
        {"comment": "One night's work: an index build, a token build or a re-ranking."},
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    kind: Mapped[RunKind] = mapped_column(pg_enum(RunKind))
    state: Mapped[RunState] = mapped_column(
        pg_enum(RunState), server_default=RunState.RUNNING, index=True
    )
    stage: Mapped[Stage] = mapped_column(pg_enum(Stage))
    catalog_id: Mapped[int] = mapped_column(ForeignKey("catalog.id", ondelete="CASCADE"))
    index_id: Mapped[int | None] = mapped_column(ForeignKey("index.id", ondelete="CASCADE"))
    query_set_id: Mapped[int | None] = mapped_column(ForeignKey("query_set.id", ondelete="CASCADE"))
    token_set_id: Mapped[int | None] = mapped_column(
        ForeignKey("token_set.id", ondelete="SET NULL"),
        comment="The visual tokens that it makes, or that its score jobs read.",
    )
    method: Mapped[str | None]
    scorer: Mapped[str | None]
    scorer_fingerprint: Mapped[str | None] = mapped_column(ForeignKey("model.fingerprint"))
    params: Mapped[dict[str, Any]] = mapped_column(comment="RunParams, frozen when it was planned.")
    priority: Mapped[int] = mapped_column(
        SmallInteger, server_default="5", comment="0 goes first, 9 last."
    )
    plan: Mapped[dict[str, Any]] = mapped_column(
        server_default="{}", comment="What planning found: items, pairs, groups, reused."
    )
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]


class Job(Base):
    """A block of work; a message in Redis is only a doorbell for one of these rows."""

    __tablename__ = "job"
    __table_args__ = (
        PrimaryKeyConstraint("run_id", "id"),
        CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name="lease"),
        CheckConstraint("n_units >= 0 AND attempt >= 0", name="counts"),
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

    run_id: Mapped[int] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"))
    id: Mapped[int] = mapped_column(comment="Counts from 1 in each run.")
    stage: Mapped[Stage] = mapped_column(pg_enum(Stage))
    state: Mapped[JobState] = mapped_column(pg_enum(JobState), server_default=JobState.QUEUED)
    queue: Mapped[str] = mapped_column(comment="stage, or stage.model fingerprint")
    payload: Mapped[dict[str, Any]] = mapped_column(comment="Ids of what it works on.")
    n_units: Mapped[int] = mapped_column(comment="Items, queries or pairs.")
    attempt: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    token: Mapped[int] = mapped_column(
        server_default="0", comment="Fencing token of the last claim."
    )
    worker_id: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    not_before: Mapped[datetime] = mapped_column(server_default=func.now())
    sent_at: Mapped[datetime | None] = mapped_column(comment="When its doorbell was last rung.")
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    n_failed: Mapped[int] = mapped_column(server_default="0")
    error: Mapped[str | None]


class JobDelta(Base):
    """What one statement changed in the counts of jobs, written by triggers on `job`.

    Inserted, never updated: no commit of a worker waits for another's.
    """

    __tablename__ = "job_delta"
    __table_args__ = {
        "comment": "What statements added to counts of jobs and took from them, not yet in "
        "job_count."
    }

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    run_id: Mapped[int]
    stage: Mapped[str]
    state: Mapped[str] = mapped_column(comment="Of the jobs.")
    jobs: Mapped[int]
    units: Mapped[int] = mapped_column(comment="Items, queries or pairs.")
    units_failed: Mapped[int] = mapped_column(comment="Units without a result.")


class JobCount(Base):
    """Deltas, summed by the dispatcher; `v_run_progress` adds those it has not come to yet."""

    __tablename__ = "job_count"
    __table_args__ = {
        "comment": "Jobs and units of a run by stage and state, but for what job_delta still holds."
    }

    run_id: Mapped[int] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), primary_key=True)
    stage: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(primary_key=True, comment="Of the jobs.")
    jobs: Mapped[int]
    units: Mapped[int] = mapped_column(comment="Items, queries or pairs.")
    units_failed: Mapped[int] = mapped_column(comment="Units without a result.")


class TallyDelta(Base):
    """What one job measured, written with its results; never updated, as `JobDelta`."""

    __tablename__ = "tally_delta"
    __table_args__ = {"comment": "What one job measured of its own work, not yet in tally."}

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    run_id: Mapped[int]
    name: Mapped[TallyName] = mapped_column(pg_enum(TallyName), comment="Of what.")
    amount: Mapped[float] = mapped_column(Double)


class Tally(Base):
    """Deltas, summed by the dispatcher; `v_tally` adds those it has not come to yet."""

    __tablename__ = "tally"
    __table_args__ = {
        "comment": "What the jobs of a run measured, but for what tally_delta still holds."
    }

    run_id: Mapped[int] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[TallyName] = mapped_column(
        pg_enum(TallyName), primary_key=True, comment="Of what."
    )
    amount: Mapped[float] = mapped_column(Double)


class Lease(Base):
    """A named right that one process holds at a time: the dispatcher's, a Milvus Lite writer's."""

    __tablename__ = "lease"
    __table_args__ = {"comment": "Named rights held by one process at a time."}

    name: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[str]
    token: Mapped[int]
    expires_at: Mapped[datetime]


class Worker(Base):
    """A worker process as it last reported itself; liveness of jobs is judged by leases alone."""

    __tablename__ = "worker"
    __table_args__ = {"comment": "Worker processes as they last reported themselves."}

    id: Mapped[str] = mapped_column(primary_key=True, comment="host:pid:random")
    host: Mapped[str]
    pid: Mapped[int]
    device: Mapped[str]
    stages: Mapped[str]
    model: Mapped[str | None] = mapped_column(comment="Fingerprint of the weights it has loaded.")
    run_id: Mapped[int | None]
    job_id: Mapped[int | None]
    units_per_s: Mapped[float | None] = mapped_column(comment="Over its last job.")
    loading: Mapped[str | None] = mapped_column(
        comment="Fingerprint of the weights that it is loading for its run."
    )
    loading_since: Mapped[datetime | None]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
    stopped_at: Mapped[datetime | None]


class Failure(Base):
    """What went wrong, with which thing, and why; nothing else is lost by it."""

    __tablename__ = "failure"
    __table_args__ = (
        CheckConstraint("num_nonnulls(run_id, import_id, query_set_id) = 1", name="belongs_to_one"),
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

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    run_id: Mapped[int | None] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"))
    import_id: Mapped[int | None] = mapped_column(
        ForeignKey("catalog_import.id", ondelete="CASCADE"), index=True
    )
    query_set_id: Mapped[int | None] = mapped_column(
        ForeignKey("query_set.id", ondelete="CASCADE"), index=True
    )
    stage: Mapped[str] = mapped_column(comment="import, or the stage of a run")
    subject_kind: Mapped[SubjectKind] = mapped_column(pg_enum(SubjectKind))
    subject_id: Mapped[str] = mapped_column(
        comment="Line number, external id, or query id → item id."
    )
    reason: Mapped[str] = mapped_column(comment="Stable code, such as image_unreadable.")
    message: Mapped[str] = mapped_column(comment="What happened and what to do.")
    fatal: Mapped[bool] = mapped_column(
        server_default=text("true"), comment="False for a notice, such as a cut text."
    )
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
