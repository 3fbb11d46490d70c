"""Postgres: candidates, scores, rankings and calibration, partitioned by run."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    PrimaryKeyConstraint,
    SmallInteger,
    func,
)
from sqlalchemy.dialects.postgresql import REAL
from sqlalchemy.orm import Mapped, mapped_column

from nightshift.schema.states import DecidedBy
from nightshift.schema.tables import Base, pg_enum

__all__ = ["PARTITIONED_TABLES", "Answer", "Calibration", "Candidate", "PairScore", "Ranking"]

#: Parents of one partition a run; dropping a run's partitions prunes its night.
PARTITIONED_TABLES = ("job", "candidate", "pair_score", "ranking")


class Candidate(Base):
    """An item that the coarse search found for a query."""

    __tablename__ = "candidate"
    __table_args__ = (
        PrimaryKeyConstraint("run_id", "query_id", "item_id"),
        CheckConstraint("coarse_rank >= 1", name="rank"),
        {
            "comment": "An item that the coarse search found for a query.",
            "postgresql_partition_by": "LIST (run_id)",
        },
    )

    run_id: Mapped[int]
    query_id: Mapped[int]
    item_id: Mapped[int]
    coarse_rank: Mapped[int] = mapped_column(SmallInteger, comment="From 1.")
    coarse_score: Mapped[float] = mapped_column(REAL, comment="Cosine similarity.")


class PairScore(Base):
    """What the scorer read off one (query, candidate) pair, never rounded."""

    __tablename__ = "pair_score"
    __table_args__ = (
        PrimaryKeyConstraint("run_id", "query_id", "item_id"),
        Index("ix_pair_score_pair_key", "pair_key"),
        {
            "comment": "What the scorer read off one (query, candidate) pair, never rounded.",
            "postgresql_partition_by": "LIST (run_id)",
        },
    )

    run_id: Mapped[int]
    query_id: Mapped[int]
    item_id: Mapped[int]
    pair_key: Mapped[bytes] = mapped_column(
        comment="SHA-256 of scorer fingerprint, query and item content, and list if it is of one."
    )
    margin: Mapped[float] = mapped_column(
        REAL,
        comment="Log-odds: positive label's logit minus the negative's, or as the score says.",
    )
    logit_positive: Mapped[float | None] = mapped_column(
        REAL, comment="This and the next three are empty where the model wrote the score."
    )
    logit_negative: Mapped[float | None] = mapped_column(REAL)
    logsumexp: Mapped[float | None] = mapped_column(REAL, comment="Over the whole vocabulary.")
    entropy: Mapped[float | None] = mapped_column(
        REAL, comment="Nats, over the whole vocabulary; of a second question where scores tied."
    )
    fired: Mapped[bool] = mapped_column(comment="Whether the visual enhancement acted.")
    fired_layer: Mapped[int | None] = mapped_column(SmallInteger)
    uncertainty: Mapped[float | None] = mapped_column(
        REAL, comment="Of the layer that decided, 0 to 1."
    )
    plain_margin: Mapped[float | None] = mapped_column(
        REAL, comment="Without the enhancement, where the run compared the two."
    )
    written: Mapped[str | None] = mapped_column(
        comment="What the model wrote, where that is the score."
    )
    reused_from: Mapped[int | None] = mapped_column(
        comment="The run that computed it, if not this."
    )


class Ranking(Base):
    """A candidate's final place, and why it stands there."""

    __tablename__ = "ranking"
    __table_args__ = (
        PrimaryKeyConstraint("run_id", "query_id", "final_rank"),
        CheckConstraint("final_rank >= 1 AND coarse_rank >= 1", name="ranks"),
        CheckConstraint("probability BETWEEN 0 AND 1", name="probability"),
        Index("uq_ranking_item", "run_id", "query_id", "item_id", unique=True),
        {
            "comment": "A candidate's final place, and why it stands there.",
            "postgresql_partition_by": "LIST (run_id)",
        },
    )

    run_id: Mapped[int]
    query_id: Mapped[int]
    final_rank: Mapped[int] = mapped_column(SmallInteger)
    item_id: Mapped[int]
    coarse_rank: Mapped[int] = mapped_column(SmallInteger)
    coarse_score: Mapped[float] = mapped_column(REAL)
    margin: Mapped[float | None] = mapped_column(
        REAL, comment="Empty where the pair failed: it keeps its coarse order below the scored."
    )
    probability: Mapped[float | None] = mapped_column(REAL, comment="Logistic of the margin.")
    entropy: Mapped[float | None] = mapped_column(REAL)
    fired: Mapped[bool | None]
    fired_layer: Mapped[int | None] = mapped_column(SmallInteger)
    tie_group: Mapped[int | None] = mapped_column(
        SmallInteger, comment="Candidates of one query with the same quantised score share it."
    )
    tie_size: Mapped[int | None] = mapped_column(SmallInteger)
    decided_by: Mapped[DecidedBy] = mapped_column(pg_enum(DecidedBy))
    scorer_fingerprint: Mapped[str]


class Answer(Base):
    """What the model answered to a query from its best results."""

    __tablename__ = "answer"
    __table_args__ = {"comment": "What the model answered to a query from its best results."}

    run_id: Mapped[int] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), primary_key=True)
    query_id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    shown: Mapped[list[Any]] = mapped_column(comment="Ids of the items shown, the best first.")
    cited: Mapped[list[Any]] = mapped_column(
        comment="Ids of the items that the text cites, in order of mention."
    )
    n_tokens: Mapped[int]
    ended: Mapped[bool] = mapped_column(comment="False where it was cut at the longest length.")
    answerer: Mapped[dict[str, Any]] = mapped_column(
        comment="What made it: scorer, wording, limits."
    )
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Calibration(Base):
    """Statistics of one rank job, merged at read in job order."""

    __tablename__ = "calibration"
    __table_args__ = {"comment": "Statistics of one rank job; v_calibration merges them."}

    run_id: Mapped[int] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), primary_key=True)
    job_id: Mapped[int] = mapped_column(primary_key=True)
    statistics: Mapped[dict[str, Any]]
