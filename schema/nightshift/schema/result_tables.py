"""Postgres: candidates, rankings, answers and calibration of runs."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    PrimaryKeyConstraint,
    SmallInteger,
    UniqueConstraint,
    func,
)
from sqlalchemy.dialects.postgresql import REAL
from sqlalchemy.orm import Mapped, mapped_column

from nightshift.schema.states import DecidedBy
from nightshift.schema.tables import Base, pg_enum

__all__ = ["PARTITIONED_TABLES", "Answer", "Calibration", "Candidate", "Ranking"]

#: Parents of one partition a run; dropping a run's partitions prunes its night.
PARTITIONED_TABLES = ("job", "candidate", "ranking")


class Candidate(Base):
    """An item that the coarse search found for a query."""

    __tablename__ = "candidate"
    __table_args__ = (
        PrimaryKeyConstraint("run_id", "query_id", "item_id"),
        UniqueConstraint("run_id", "query_id", "coarse_rank"),
        CheckConstraint("coarse_rank >= 1", name="rank"),
        {
            "comment": "An item that the coarse search found for a query.",
            "postgresql_partition_by": "LIST (run_id)",
        },
    )

    run_id: Mapped[int] = mapped_column(comment="The run that searched; its partition.")
    query_id: Mapped[int] = mapped_column(comment="The query, by query.id.")
    item_id: Mapped[int] = mapped_column(comment="The item that was found, by item.id.")
    content_id: Mapped[int] = mapped_column(
        comment="What it consists of in the revision of the run, by content.id."
    )
    coarse_rank: Mapped[int] = mapped_column(SmallInteger, comment="From 1.")
    coarse_score: Mapped[float] = mapped_column(REAL, comment="Cosine similarity.")
    load_id: Mapped[int | None] = mapped_column(
        comment="The load in model_load that it comes of; empty where nobody knows."
    )
    score_id: Mapped[int | None] = mapped_column(
        comment="Its score, by score.id; empty until it has one, and where scoring failed."
    )


class Ranking(Base):
    """A candidate's final place, and why it stands there."""

    __tablename__ = "ranking"
    __table_args__ = (
        PrimaryKeyConstraint("run_id", "query_id", "final_rank"),
        CheckConstraint("final_rank >= 1 AND coarse_rank >= 1", name="ranks"),
        CheckConstraint("probability BETWEEN 0 AND 1", name="probability"),
        CheckConstraint(
            "num_nulls(margin, probability, fired, tie_group, tie_size) IN (0, 5)", name="scored"
        ),
        CheckConstraint("coalesce(fired, false) = (fired_layer IS NOT NULL)", name="fired"),
        CheckConstraint("tie_group >= 1 AND tie_size >= 1", name="ties"),
        CheckConstraint(
            "CASE decided_by WHEN 'score' THEN margin IS NOT NULL "
            "WHEN 'entropy' THEN entropy IS NOT NULL AND tie_size > 1 ELSE true END",
            name="reason",
        ),
        Index("uq_ranking_item", "run_id", "query_id", "item_id", unique=True),
        {
            "comment": "A candidate's final place, and why it stands there.",
            "postgresql_partition_by": "LIST (run_id)",
        },
    )

    run_id: Mapped[int] = mapped_column(comment="The run that ranked; its partition.")
    query_id: Mapped[int] = mapped_column(comment="The query, by query.id.")
    final_rank: Mapped[int] = mapped_column(
        SmallInteger, comment="Place after fine scoring, from 1."
    )
    item_id: Mapped[int] = mapped_column(comment="The candidate, by item.id.")
    coarse_rank: Mapped[int] = mapped_column(
        SmallInteger, comment="Place in the coarse search, from 1."
    )
    coarse_score: Mapped[float] = mapped_column(REAL, comment="Cosine similarity.")
    margin: Mapped[float | None] = mapped_column(
        REAL, comment="Empty where the pair failed: it keeps its coarse order below the scored."
    )
    probability: Mapped[float | None] = mapped_column(REAL, comment="Logistic of the margin.")
    entropy: Mapped[float | None] = mapped_column(
        REAL, comment="Nats, over the whole vocabulary; empty where none was read."
    )
    fired: Mapped[bool | None] = mapped_column(
        comment="Whether the visual enhancement acted; empty where the pair failed."
    )
    fired_layer: Mapped[int | None] = mapped_column(
        SmallInteger,
        comment="Decoder layer, from 0, whose uncertainty fired it; empty where nothing fired.",
    )
    tie_group: Mapped[int | None] = mapped_column(
        SmallInteger, comment="Candidates of one query with the same quantised score share it."
    )
    tie_size: Mapped[int | None] = mapped_column(
        SmallInteger,
        comment="Candidates in its tie group, 1 where it ties with none; empty where the pair "
        "failed.",
    )
    decided_by: Mapped[DecidedBy] = mapped_column(
        pg_enum(DecidedBy),
        comment="What put it here: score, entropy (tie-break) or coarse (order of the coarse "
        "search).",
    )
    scorer_fingerprint: Mapped[str] = mapped_column(
        comment="What scored it, parameters included; its row in model."
    )


class Answer(Base):
    """The answer of the model to a query, made from its best results."""

    __tablename__ = "answer"
    __table_args__ = (
        CheckConstraint("n_tokens >= 0", name="n_tokens"),
        CheckConstraint(
            "jsonb_typeof(shown) = 'array' AND jsonb_typeof(cited) = 'array'", name="lists"
        ),
        {"comment": "What the model answered to a query from its best results."},
    )

    run_id: Mapped[int] = mapped_column(
        ForeignKey("run.id", ondelete="CASCADE"),
        primary_key=True,
        comment="The run whose results were shown.",
    )
    query_id: Mapped[int] = mapped_column(primary_key=True, comment="The query, by query.id.")
    text: Mapped[str] = mapped_column(comment="What the model wrote.")
    shown: Mapped[list[Any]] = mapped_column(comment="Ids of the items shown, the best first.")
    cited: Mapped[list[Any]] = mapped_column(
        comment="Ids of the items that the text cites, in order of mention."
    )
    n_tokens: Mapped[int] = mapped_column(comment="Tokens that it wrote.")
    ended: Mapped[bool] = mapped_column(comment="False where it was cut at the longest length.")
    answerer: Mapped[dict[str, Any]] = mapped_column(
        comment="What made it: scorer, wording, limits."
    )
    created_at: Mapped[datetime] = mapped_column(
        server_default=func.now(), comment="When it was kept."
    )
    load_id: Mapped[int | None] = mapped_column(
        comment="The load in model_load that it comes of; empty where nobody knows."
    )


class Calibration(Base):
    """Statistics of one rank job, merged at read in job order."""

    __tablename__ = "calibration"
    __table_args__ = (
        CheckConstraint("jsonb_typeof(statistics) = 'object'", name="statistics"),
        {"comment": "Statistics of one rank job; v_calibration merges them."},
    )

    run_id: Mapped[int] = mapped_column(
        ForeignKey("run.id", ondelete="CASCADE"), primary_key=True, comment="The run that ranked."
    )
    job_id: Mapped[int] = mapped_column(
        primary_key=True, comment="The rank job that observed it, by its number in the run."
    )
    statistics: Mapped[dict[str, Any]] = mapped_column(
        comment="Counts by name, histograms as lists, counts by layer or cause as objects; sums "
        "of probabilities and squared errors in units of 2^-32."
    )
