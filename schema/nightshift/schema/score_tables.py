"""Postgres: scores of pairs, each written once and used by every later run."""

from datetime import date

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Date,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Sequence,
    SmallInteger,
)
from sqlalchemy.dialects.postgresql import REAL
from sqlalchemy.orm import Mapped, mapped_column

from nightshift.schema.tables import Base

__all__ = ["Score"]

_ID = Sequence("score_id_seq", metadata=Base.metadata)


class Score(Base):
    """Values that a scorer read from the model for a pair of contents, never rounded."""

    __tablename__ = "score"
    __table_args__ = (
        # The key first: it is looked up without the month.
        PrimaryKeyConstraint("pair_key", "scorer", "month"),
        # Neither an infinity nor NaN, which Postgres puts above it.
        CheckConstraint("margin > '-Infinity' AND margin < 'Infinity'", name="finite"),
        CheckConstraint(
            "num_nulls(logit_positive, logit_negative, logsumexp, entropy) IN (0, 4)",
            name="logits",
        ),
        CheckConstraint("num_nonnulls(logit_positive, written) > 0", name="read"),
        CheckConstraint("fired = (fired_layer IS NOT NULL)", name="fired"),
        Index("ix_score_id", "id"),
        {
            "comment": "What a scorer read off a pair of contents, never rounded; one row a pair.",
            "postgresql_partition_by": "LIST (scorer)",
        },
    )

    id: Mapped[int] = mapped_column(
        BigInteger,
        _ID,
        server_default=_ID.next_value(),
        comment="Names it in candidates; of one sequence for all partitions.",
    )
    scorer: Mapped[int] = mapped_column(Integer, comment="The scorer, by model.number.")
    month: Mapped[date] = mapped_column(
        Date, comment="First day of the month in which the run that computed it was planned."
    )
    pair_key: Mapped[bytes] = mapped_column(
        comment="SHA-256 of scorer fingerprint, query and item content, and list if it is of one."
    )
    margin: Mapped[float] = mapped_column(
        REAL,
        comment="Log-odds: positive label's logit minus the negative's, or as the score says.",
    )
    logit_positive: Mapped[float | None] = mapped_column(
        REAL,
        comment="Of the positive label. This and the next three are empty where the model wrote "
        "the score.",
    )
    logit_negative: Mapped[float | None] = mapped_column(
        REAL, comment="Of the negative label; in a list, of all its other members together."
    )
    logsumexp: Mapped[float | None] = mapped_column(REAL, comment="Over the whole vocabulary.")
    entropy: Mapped[float | None] = mapped_column(
        REAL, comment="Nats, over the whole vocabulary; of a second question where scores tied."
    )
    fired: Mapped[bool] = mapped_column(comment="Whether the visual enhancement acted.")
    fired_layer: Mapped[int | None] = mapped_column(
        SmallInteger,
        comment="Decoder layer, from 0, whose uncertainty fired it; empty where nothing fired.",
    )
    uncertainty: Mapped[float | None] = mapped_column(
        REAL, comment="Of the layer that decided, 0 to 1."
    )
    plain_margin: Mapped[float | None] = mapped_column(
        REAL, comment="Without the enhancement, where the run compared the two."
    )
    written: Mapped[str | None] = mapped_column(
        comment="What the model wrote, where that is the score."
    )
    run_id: Mapped[int] = mapped_column(comment="The run that computed it.")
    load_id: Mapped[int | None] = mapped_column(
        comment="The load in model_load that it comes of; empty where nobody knows."
    )
