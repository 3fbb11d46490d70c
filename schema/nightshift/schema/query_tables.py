"""Postgres: query sets, queries and judgements."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Identity, SmallInteger, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from nightshift.schema.tables import Base

__all__ = ["Qrel", "Query", "QuerySet"]


class QuerySet(Base):
    """A named, immutable list of queries; the same content under the same name is the same set."""

    __tablename__ = "query_set"
    __table_args__ = (
        UniqueConstraint("name", "content_hash"),
        CheckConstraint("n_queries >= 0", name="n_queries"),
        {"comment": "A named, immutable list of queries."},
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True, comment="Row id.")
    name: Mapped[str] = mapped_column(
        comment="Of its import; sets of other content may have the same."
    )
    content_hash: Mapped[bytes] = mapped_column(
        comment="SHA-256 of all its queries, judgements and failures, in order."
    )
    n_queries: Mapped[int] = mapped_column(server_default="0", comment="Queries that it holds.")
    created_at: Mapped[datetime] = mapped_column(
        server_default=func.now(), comment="When it was imported."
    )


class Query(Base):
    """One query: ordered typed parts and metadata."""

    __tablename__ = "query"
    __table_args__ = (
        UniqueConstraint("query_set_id", "external_id"),
        CheckConstraint("length(external_id) > 0", name="named"),
        CheckConstraint("jsonb_array_length(parts) > 0", name="has_parts"),
        {"comment": "One query: ordered typed parts and metadata."},
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True, comment="Row id.")
    query_set_id: Mapped[int] = mapped_column(
        ForeignKey("query_set.id", ondelete="CASCADE"), comment="The set that it belongs to."
    )
    external_id: Mapped[str] = mapped_column(comment="The query's id in its file.")
    parts: Mapped[list[Any]] = mapped_column(comment="Texts and images in order, as item.parts.")
    text_hash: Mapped[bytes | None] = mapped_column(
        comment="SHA-256 of the texts alone; empty where there is none."
    )
    image_hash: Mapped[bytes | None] = mapped_column(
        comment="SHA-256 of the images alone; empty where there is none."
    )
    content_hash: Mapped[bytes] = mapped_column(comment="SHA-256 of all parts in order.")
    extra: Mapped[dict[str, Any]] = mapped_column(
        "metadata", server_default="{}", comment="What came along; no model sees it."
    )


class Qrel(Base):
    """A human's (or a generator's) judgement: this item answers this query."""

    __tablename__ = "qrel"
    __table_args__ = {"comment": "Judgements: which item answers which query, by external ids."}

    query_set_id: Mapped[int] = mapped_column(
        ForeignKey("query_set.id", ondelete="CASCADE"),
        primary_key=True,
        comment="The set that holds the query.",
    )
    query_external_id: Mapped[str] = mapped_column(
        primary_key=True, comment="The query, by its id in its file."
    )
    item_external_id: Mapped[str] = mapped_column(
        primary_key=True, comment="The item, by its id in its source; no catalogue need have it."
    )
    relevance: Mapped[int] = mapped_column(
        SmallInteger,
        comment="Grade of the judgement: above 0 the item answers the query, else it does not.",
    )
