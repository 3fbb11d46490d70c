"""Postgres: catalogues and queries; see also the other `*_tables`."""

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
    Integer,
    LargeBinary,
    MetaData,
    Text,
    UniqueConstraint,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from nightshift.schema.states import IndexState

__all__ = [
    "Base",
    "Catalog",
    "CatalogImport",
    "Embedding",
    "IndexVersion",
    "Model",
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

    id: Mapped[int] = mapped_column(Identity(), primary_key=True, comment="Row id.")
    name: Mapped[str] = mapped_column(unique=True, comment="Unique, as given to catalog import.")
    created_at: Mapped[datetime] = mapped_column(
        server_default=func.now(), comment="When something was first imported into it."
    )


class CatalogImport(Base):
    """One reading of a source; accepted + failed + unchanged + not_applied = read, always."""

    __tablename__ = "catalog_import"
    __table_args__ = (
        CheckConstraint(
            "finished_at IS NULL OR read = accepted + failed + unchanged + not_applied",
            name="adds_up",
        ),
        CheckConstraint(
            "least(read, accepted, failed, unchanged, not_applied) >= 0", name="counts"
        ),
        {"comment": "One reading of a source into a catalogue, with its counts."},
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True, comment="Row id.")
    catalog_id: Mapped[int] = mapped_column(
        ForeignKey("catalog.id", ondelete="CASCADE"),
        index=True,
        comment="The catalogue that it fills.",
    )
    source: Mapped[str] = mapped_column(comment="Path or URL that was read, without passwords.")
    source_key: Mapped[str | None] = mapped_column(
        comment="The source by a name that all its spellings share; empty where an earlier release "
        "read a relative path."
    )
    read: Mapped[int] = mapped_column(server_default="0", comment="Rows read so far.")
    accepted: Mapped[int] = mapped_column(
        server_default="0", comment="Rows that were new, changed, or back after they were gone."
    )
    failed: Mapped[int] = mapped_column(
        server_default="0", comment="Rows that have a failure instead."
    )
    unchanged: Mapped[int] = mapped_column(
        server_default="0", comment="Rows that were stored already, as they are."
    )
    not_applied: Mapped[int] = mapped_column(
        server_default="0",
        comment="Good rows of an import that was refused or interrupted: none is in the catalogue.",
    )
    started_at: Mapped[datetime] = mapped_column(
        server_default=func.now(), comment="When reading began."
    )
    finished_at: Mapped[datetime | None] = mapped_column(
        comment="When it ended, whole or not; empty while it reads, and where it was killed."
    )


class Model(Base):
    """A model by fingerprint: what made a vector or a score."""

    __tablename__ = "model"
    __table_args__ = {"comment": "A model by fingerprint: what made a vector or a score."}

    fingerprint: Mapped[str] = mapped_column(
        primary_key=True, comment="Short name of everything that could change its output."
    )
    number: Mapped[int] = mapped_column(
        Integer, Identity(), unique=True, comment="Names it in tables of many rows."
    )
    kind: Mapped[str] = mapped_column(
        CheckConstraint("kind IN ('embedder', 'scorer', 'vision')", name="kind"),
        comment="embedder, scorer, or vision: the vision tower of a scorer.",
    )
    spec: Mapped[str] = mapped_column(comment="As the operator named it.")
    card: Mapped[dict[str, Any]] = mapped_column(
        comment="Weights digest or hub revision, configuration, precision, method parameters."
    )
    package_version: Mapped[str] = mapped_column(
        comment="Of Nightshift, when it first met this model."
    )
    created_at: Mapped[datetime] = mapped_column(
        server_default=func.now(), comment="When it was first planned with."
    )


class IndexVersion(Base):
    """One version of an index over a catalogue, in one Milvus collection of its own."""

    __tablename__ = "index"
    __table_args__ = (
        UniqueConstraint("catalog_id", "name", "version"),
        CheckConstraint("dim > 0", name="dim"),
        CheckConstraint("version > 0", name="version"),
        CheckConstraint("metric IN ('COSINE', 'IP')", name="metric"),
        CheckConstraint(
            "index_type IN ('FLAT', 'HNSW', 'IVF_FLAT', 'IVF_SQ8', 'IVF_PQ', 'SCANN', 'DISKANN')",
            name="index_type",
        ),
        {"comment": "One version of an index over a catalogue, in one Milvus collection."},
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True, comment="Row id.")
    catalog_id: Mapped[int] = mapped_column(
        ForeignKey("catalog.id", ondelete="CASCADE"), comment="The catalogue whose items it holds."
    )
    name: Mapped[str] = mapped_column(comment="Of all its versions.")
    version: Mapped[int] = mapped_column(
        comment="From 1 within a name; the newest that is ready is searched."
    )
    embedder: Mapped[str] = mapped_column(
        comment="Specification, such as open_clip:ViT-B-32/openai."
    )
    embedder_fingerprint: Mapped[str] = mapped_column(
        ForeignKey("model.fingerprint"),
        comment="The model that made its vectors, parameters included.",
    )
    parts: Mapped[str] = mapped_column(
        CheckConstraint("parts IN ('text', 'image', 'text,image')", name="parts"),
        comment="The parts of an item that the embedder sees.",
    )
    dim: Mapped[int] = mapped_column(comment="Numbers in a vector.")
    metric: Mapped[str] = mapped_column(
        server_default="COSINE",
        comment="How Milvus compares vectors: COSINE or IP, the same for ours, which have "
        "length 1.",
    )
    index_type: Mapped[str] = mapped_column(
        server_default="FLAT",
        comment="How Milvus searches: FLAT is exact, the other types are not.",
    )
    collection: Mapped[str] = mapped_column(
        unique=True, comment="The Milvus collection that holds the vectors."
    )
    state: Mapped[IndexState] = mapped_column(
        pg_enum(IndexState),
        server_default=IndexState.BUILDING,
        comment="building, ready (searched) or retired (a newer version took over).",
    )
    created_at: Mapped[datetime] = mapped_column(
        server_default=func.now(), comment="When it was planned."
    )


class Embedding(Base):
    """A vector of an item in an index: a search may return it where the item has that content."""

    __tablename__ = "embedding"
    __table_args__ = (
        Index("ix_embedding_item_id", "item_id", "index_id"),
        {"comment": "The vectors of items in an index; Milvus holds the numbers."},
    )

    index_id: Mapped[int] = mapped_column(
        ForeignKey("index.id", ondelete="CASCADE"),
        primary_key=True,
        comment="The index version that the vector belongs to.",
    )
    key: Mapped[str] = mapped_column(primary_key=True, comment="Milvus primary key, 64 hex digits.")
    item_id: Mapped[int] = mapped_column(
        ForeignKey("item.id", ondelete="CASCADE"), comment="The item that it stands for."
    )
    content: Mapped[bytes] = mapped_column(
        comment="SHA-256 of what was embedded: text_hash, image_hash or content_hash of its "
        "content, by the parts of the index."
    )
    run_id: Mapped[int] = mapped_column(comment="The run that made it.")
    load_id: Mapped[int | None] = mapped_column(
        comment="The load in model_load that it comes of; empty where nobody knows."
    )
