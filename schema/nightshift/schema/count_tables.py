"""Postgres: sums over jobs, kept as deltas so that no hot row serialises their commits."""

from sqlalchemy import Double, ForeignKey, Identity
from sqlalchemy.orm import Mapped, mapped_column

from nightshift.schema.states import TallyName
from nightshift.schema.tables import Base, pg_enum

__all__ = ["JobCount", "JobDelta", "Tally", "TallyDelta"]


class JobDelta(Base):
    """Changes of one statement to the counts of jobs, written by triggers on `job`.

    Inserted, never updated: no commit of a worker waits for another's.
    """

    __tablename__ = "job_delta"
    __table_args__ = {
        "comment": "What statements added to counts of jobs and took from them, not yet in "
        "job_count."
    }

    id: Mapped[int] = mapped_column(Identity(), primary_key=True, comment="Row id.")
    run_id: Mapped[int] = mapped_column(comment="The run that the jobs are part of.")
    stage: Mapped[str] = mapped_column(comment="Of the jobs.")
    state: Mapped[str] = mapped_column(comment="Of the jobs.")
    jobs: Mapped[int] = mapped_column(
        comment="Jobs that came to this stage and state, less those that left it."
    )
    units: Mapped[int] = mapped_column(comment="Items, queries or pairs.")
    units_failed: Mapped[int] = mapped_column(comment="Units without a result.")


class JobCount(Base):
    """Deltas, summed by the dispatcher; `v_run_progress` adds those it has not come to yet."""

    __tablename__ = "job_count"
    __table_args__ = {
        "comment": "Jobs and units of a run by stage and state, but for what job_delta still holds."
    }

    run_id: Mapped[int] = mapped_column(
        ForeignKey("run.id", ondelete="CASCADE"),
        primary_key=True,
        comment="The run that the jobs are part of.",
    )
    stage: Mapped[str] = mapped_column(primary_key=True, comment="Of the jobs.")
    state: Mapped[str] = mapped_column(primary_key=True, comment="Of the jobs.")
    jobs: Mapped[int] = mapped_column(comment="Jobs in this stage and state.")
    units: Mapped[int] = mapped_column(comment="Items, queries or pairs.")
    units_failed: Mapped[int] = mapped_column(comment="Units without a result.")


class TallyDelta(Base):
    """Measurements of one job, written with its results; never updated, as `JobDelta`."""

    __tablename__ = "tally_delta"
    __table_args__ = {"comment": "What one job measured of its own work, not yet in tally."}

    id: Mapped[int] = mapped_column(Identity(), primary_key=True, comment="Row id.")
    run_id: Mapped[int] = mapped_column(comment="The run that the job is part of.")
    name: Mapped[TallyName] = mapped_column(
        pg_enum(TallyName),
        comment="pairs, prefixes, pictures, vectors, or top_share: summed over vectors, the "
        "share of the squared length in the five largest dimensions.",
    )
    amount: Mapped[float] = mapped_column(
        Double, comment="What this job adds; a count but for top_share."
    )


class Tally(Base):
    """Deltas, summed by the dispatcher; `v_tally` adds those it has not come to yet."""

    __tablename__ = "tally"
    __table_args__ = {
        "comment": "What the jobs of a run measured, but for what tally_delta still holds."
    }

    run_id: Mapped[int] = mapped_column(
        ForeignKey("run.id", ondelete="CASCADE"),
        primary_key=True,
        comment="The run that the jobs are part of.",
    )
    name: Mapped[TallyName] = mapped_column(
        pg_enum(TallyName), primary_key=True, comment="As tally_delta.name."
    )
    amount: Mapped[float] = mapped_column(Double, comment="Sum over jobs that are done.")
