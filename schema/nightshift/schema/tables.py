"""Postgres: catalogues and queries; see also `ledger_tables` and `result_tables`."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Enum,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    SmallInteger,
    Text,
    UniqueConstraint,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from nightshift.schema.states import IndexState, ItemState

__all__ = [
    "Base",
    "Catalog",
    "CatalogImport",
    "Embedding",
    "IndexVersion",
    "Item",
    "Model",
    "Qrel",
    "Query",
    "QuerySet",
    "pg_enum",
]


class Base(DeclarativeBase):
    """All tables; constraint names are fixed so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {
        str: Text,
        int: BigInteger,
        bytes: LargeBinary,
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[Any]: JSONB,
    }


def pg_enum(kind: type[StrEnum]) -> Enum:
    """A checked text column that holds the enum's values."""
    return Enum(
        kind,
        native_enum=False,
        create_constraint=True,
        length=16,
        name=kind.__name__.lower(),
        values_callable=lambda members: [member.value for member in members],
    )


class Catalog(Base):
    """A named collection of items."""

    __tablename__ = "catalog"
    __table_args__ = {"comment": "A named collection of items."}

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class CatalogImport(Base):
    """One reading of a source; accepted + failed + unchanged = read, always."""

    __tablename__ = "catalog_import"
    __table_args__ = (
        CheckConstraint(
            "finished_at IS NULL OR read = accepted + failed + unchanged", name="adds_up"
        ),
        {"comment": "One reading of a source into a catalogue, with its counts."},
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    catalog_id: Mapped[int] = mapped_column(
        ForeignKey("catalog.id", ondelete="CASCADE"), index=True
    )
    source: Mapped[str]
    read: Mapped[int] = mapped_column(server_default="0")
    accepted: Mapped[int] = mapped_column(server_default="0")
    failed: Mapped[int] = mapped_column(server_default="0")
    unchanged: Mapped[int] = mapped_column(server_default="0")
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]


class Item(Base):
    """One thing of a catalogue: ordered typed parts and metadata."""

    __tablename__ = "item"
    __table_args__ = (
        UniqueConstraint("catalog_id", "external_id"),
        CheckConstraint("length(external_id) > 0", name="named"),
        CheckConstraint("jsonb_array_length(parts) > 0", name="has_parts"),
        {"comment": "One thing of a catalogue: ordered typed parts and metadata."},
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    catalog_id: Mapped[int] = mapped_column(ForeignKey("catalog.id", ondelete="CASCADE"))
    external_id: Mapped[str] = mapped_column(comment="The item's id in its source.")
    parts: Mapped[list[Any]] = mapped_column(
        comment='[{"kind":"text","text":…} | {"kind":"image","uri":…,"sha256":…}, …]'
    )
    text_hash: Mapped[bytes | None] = mapped_column(comment="SHA-256 of the texts alone.")
    image_hash: Mapped[bytes | None] = mapped_column(comment="SHA-256 of the images alone.")
    content_hash: Mapped[bytes] = mapped_column(comment="SHA-256 of all parts in order.")
    extra: Mapped[dict[str, Any]] = mapped_column(
        "metadata", server_default="{}", comment="What came along; no model sees it."
    )
    state: Mapped[ItemState] = mapped_column(pg_enum(ItemState), server_default=ItemState.LIVE)
    import_id: Mapped[int | None] = mapped_column(
        ForeignKey("catalog_import.id", ondelete="SET NULL"), comment="The import that last saw it."
    )
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Model(Base):
    """A model by fingerprint: what made a vector or a score."""

    __tablename__ = "model"
    __table_args__ = {"comment": "A model by fingerprint: what made a vector or a score."}

    fingerprint: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(
        CheckConstraint("kind IN ('embedder', 'scorer', 'vision')", name="kind")
    )
    spec: Mapped[str] = mapped_column(comment="As the operator named it.")
    card: Mapped[dict[str, Any]] = mapped_column(
        comment="Weights digest or hub revision, configuration, precision, method parameters."
    )
    package_version: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class IndexVersion(Base):
    """One version of an index over a catalogue, in one Milvus collection of its own."""

    __tablename__ = "index"
    __table_args__ = (
        UniqueConstraint("catalog_id", "name", "version"),
        CheckConstraint("dim > 0", name="dim"),
        {"comment": "One version of an index over a catalogue, in one Milvus collection."},
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    catalog_id: Mapped[int] = mapped_column(ForeignKey("catalog.id", ondelete="CASCADE"))
    name: Mapped[str]
    version: Mapped[int]
    embedder: Mapped[str] = mapped_column(
        comment="Specification, such as open_clip:ViT-B-32/openai."
    )
    embedder_fingerprint: Mapped[str] = mapped_column(ForeignKey("model.fingerprint"))
    parts: Mapped[str] = mapped_column(
        CheckConstraint("parts IN ('text', 'image', 'text,image')", name="parts"),
        comment="The parts of an item that the embedder sees.",
    )
    dim: Mapped[int]
    metric: Mapped[str] = mapped_column(server_default="COSINE")
    index_type: Mapped[str] = mapped_column(server_default="FLAT")
    collection: Mapped[str] = mapped_column(unique=True)
    state: Mapped[IndexState] = mapped_column(
        pg_enum(IndexState), server_default=IndexState.BUILDING
    )
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Embedding(Base):
    """The live vector of an item in an index: the only truth about what a search may return."""

    __tablename__ = "embedding"
    __table_args__ = (
        Index("ix_embedding_key", "index_id", "key", unique=True),
        {"comment": "The live vector of an item in an index; Milvus holds the numbers."},
    )

    index_id: Mapped[int] = mapped_column(
        ForeignKey("index.id", ondelete="CASCADE"), primary_key=True
    )
    item_id: Mapped[int] = mapped_column(
        ForeignKey("item.id", ondelete="CASCADE"), primary_key=True
    )
    key: Mapped[str] = mapped_column(comment="Milvus primary key, 64 hex digits.")
    run_id: Mapped[int] = mapped_column(comment="The run that made it.")


class QuerySet(Base):
    """A named, immutable list of queries; the same content under the same name is the same set."""

    __tablename__ = "query_set"
    __table_args__ = (
        UniqueConstraint("name", "content_hash"),
        {"comment": "A named, immutable list of queries."},
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str]
    content_hash: Mapped[bytes]
    n_queries: Mapped[int] = mapped_column(server_default="0")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Query(Base):
    """One query: ordered typed parts and metadata."""

    __tablename__ = "query"
    __table_args__ = (
        UniqueConstraint("query_set_id", "external_id"),
        CheckConstraint("jsonb_array_length(parts) > 0", name="has_parts"),
        {"comment": "One query: ordered typed parts and metadata."},
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    query_set_id: Mapped[int] = mapped_column(ForeignKey("query_set.id", ondelete="CASCADE"))
    external_id: Mapped[str]
    parts: Mapped[list[Any]]
    text_hash: Mapped[bytes | None]
    image_hash: Mapped[bytes | None]
    content_hash: Mapped[bytes]
    extra: Mapped[dict[str, Any]] = mapped_column("metadata", server_default="{}")


class Qrel(Base):
    """A human's (or a generator's) judgement: this item answers this query."""

    __tablename__ = "qrel"
    __table_args__ = {"comment": "Judgements: which item answers which query, by external ids."}

    query_set_id: Mapped[int] = mapped_column(
        ForeignKey("query_set.id", ondelete="CASCADE"), primary_key=True
    )
    query_external_id: Mapped[str] = mapped_column(primary_key=True)
    item_external_id: Mapped[str] = mapped_column(primary_key=True)
    relevance: Mapped[int] = mapped_column(SmallInteger)
