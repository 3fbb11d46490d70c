"""Postgres: what was found when an index was compared with its collection in Milvus."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, SmallInteger, func
from sqlalchemy.orm import Mapped, mapped_column

from nightshift.schema.tables import Base

__all__ = ["IndexRange"]


class IndexRange(Base):
    """A range of keys whose live vectors were all seen in Milvus, as long as nothing changes."""

    __tablename__ = "index_range"
    __table_args__ = (
        CheckConstraint("range BETWEEN 0 AND 255", name="range"),
        CheckConstraint("live >= 0 AND rows >= live", name="counts"),
        {"comment": "Ranges of keys whose live vectors were all seen in Milvus."},
    )

    index_id: Mapped[int] = mapped_column(
        ForeignKey("index.id", ondelete="CASCADE"),
        primary_key=True,
        comment="The index version.",
    )
    range: Mapped[int] = mapped_column(
        SmallInteger, primary_key=True, comment="The first byte of its keys, 0 to 255."
    )
    live: Mapped[int] = mapped_column(BigInteger, comment="Live keys, each seen in Milvus.")
    digest: Mapped[int] = mapped_column(
        BigInteger, comment="XOR of hashtextextended(key, 0) over these keys."
    )
    rows: Mapped[int] = mapped_column(
        BigInteger, comment="Rows of Milvus in the range; more than live where nobody owns some."
    )
    incarnation: Mapped[str | None] = mapped_column(
        comment="The start of Milvus that they were seen under; empty if it does not tell."
    )
    writes: Mapped[int | None] = mapped_column(
        BigInteger, comment="Writes that Milvus had counted by then; empty if it does not count."
    )
    verified_at: Mapped[datetime] = mapped_column(
        server_default=func.clock_timestamp(), comment="When they were seen."
    )
