"""Postgres: which visual tokens are kept, and where; the numbers themselves lie in shards."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Identity, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from nightshift.schema.tables import Base

__all__ = ["TokenRecord", "TokenSet", "TokenShard"]


class TokenSet(Base):
    """Visual tokens of a catalogue's images by one vision tower, under one codec."""

    __tablename__ = "token_set"
    __table_args__ = (
        UniqueConstraint("catalog_id", "vision_fingerprint", "codec"),
        CheckConstraint("width > 0", name="width"),
        CheckConstraint("(codebook IS NULL) = (codebook_digest IS NULL)", name="codebook"),
        {"comment": "Visual tokens of a catalogue's images by one vision tower and codec."},
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True, comment="Row id.")
    catalog_id: Mapped[int] = mapped_column(
        ForeignKey("catalog.id", ondelete="CASCADE"),
        comment="The catalogue whose images it covers.",
    )
    vision_fingerprint: Mapped[str] = mapped_column(
        ForeignKey("model.fingerprint"),
        comment="The vision tower that made the tokens; its row in model.",
    )
    codec: Mapped[str] = mapped_column(comment="Reduce, then quantise, such as pool2+int8.")
    width: Mapped[int] = mapped_column(comment="Numbers of a token before it is coded.")
    precision: Mapped[str] = mapped_column(
        comment="Number format that the tower computed in, such as float32."
    )
    address: Mapped[str] = mapped_column(comment="Folder of its shards: a path or fsspec URL.")
    codebook: Mapped[bytes | None] = mapped_column(
        comment="Trained centroids as a numpy file, where the codec has any."
    )
    codebook_digest: Mapped[str | None] = mapped_column(
        comment="Of the codebook; part of the fingerprint of what reads through it."
    )
    created_at: Mapped[datetime] = mapped_column(
        server_default=func.now(), comment="When it was first planned."
    )


class TokenShard(Base):
    """One immutable file of many records, written by one job."""

    __tablename__ = "token_shard"
    __table_args__ = (
        UniqueConstraint("token_set_id", "name"),
        CheckConstraint("n_bytes > 0", name="n_bytes"),
        {"comment": "One immutable file of many records, written by one job."},
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True, comment="Row id.")
    token_set_id: Mapped[int] = mapped_column(
        ForeignKey("token_set.id", ondelete="CASCADE"),
        index=True,
        comment="The set that it is part of.",
    )
    name: Mapped[str] = mapped_column(comment="Below the address of its set.")
    n_bytes: Mapped[int] = mapped_column(comment="Size of the file.")
    sha256: Mapped[bytes] = mapped_column(comment="Of the whole file.")
    run_id: Mapped[int] = mapped_column(comment="The run that wrote it.")
    load_id: Mapped[int | None] = mapped_column(
        comment="The load in model_load that it comes of; empty where nobody knows."
    )


class TokenRecord(Base):
    """The place of the tokens of one content's images; it alone says what is stored."""

    __tablename__ = "token_record"
    __table_args__ = (
        CheckConstraint("start >= 0 AND n_bytes > 0", name="place"),
        CheckConstraint("n_images > 0 AND n_tokens > 0", name="counts"),
        {"comment": "Where the visual tokens of one content's images lie."},
    )

    token_set_id: Mapped[int] = mapped_column(
        ForeignKey("token_set.id", ondelete="CASCADE"),
        primary_key=True,
        comment="The set that it is part of.",
    )
    content: Mapped[bytes] = mapped_column(
        primary_key=True, comment="image_hash of the items and queries that show these images."
    )
    shard_id: Mapped[int] = mapped_column(
        ForeignKey("token_shard.id", ondelete="CASCADE"),
        index=True,
        comment="The file that holds it.",
    )
    start: Mapped[int] = mapped_column(comment="Byte of the shard.")
    n_bytes: Mapped[int] = mapped_column(comment="Length in the shard.")
    digest: Mapped[bytes] = mapped_column(comment="BLAKE2b of the record, 16 bytes.")
    n_images: Mapped[int] = mapped_column(comment="Images that it holds.")
    n_tokens: Mapped[int] = mapped_column(comment="Of all its images, before they are reduced.")
