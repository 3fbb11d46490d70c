"""Postgres: the items of catalogues, their contents, and the revisions in which they have them."""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    Integer,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from nightshift.schema.tables import Base

__all__ = ["CURRENT", "Item", "ItemVersion", "Revision", "StoredContent"]

#: `last_revision` of a version that no later revision has replaced.
CURRENT: Final = 2_147_483_647


class Revision(Base):
    """A state of a catalogue; each import that is applied and each rollback makes the next one."""

    __tablename__ = "revision"
    __table_args__ = (
        CheckConstraint("number >= 1", name="number"),
        CheckConstraint("least(items, added, changed, removed) >= 0", name="counts"),
        CheckConstraint("rolled_back_to < number", name="rolled_back_to"),
        {"comment": "A state of a catalogue: what an import or a rollback left."},
    )

    catalog_id: Mapped[int] = mapped_column(
        ForeignKey("catalog.id", ondelete="CASCADE"),
        primary_key=True,
        comment="The catalogue.",
    )
    number: Mapped[int] = mapped_column(
        Integer, primary_key=True, comment="Counts from 1 in each catalogue."
    )
    import_id: Mapped[int | None] = mapped_column(
        ForeignKey("catalog_import.id", ondelete="SET NULL"),
        index=True,
        comment="The import that made it; empty for a rollback, and where an earlier release "
        "imported.",
    )
    rolled_back_to: Mapped[int | None] = mapped_column(
        Integer, comment="The revision whose state it has; empty unless it is a rollback."
    )
    items: Mapped[int] = mapped_column(comment="Items that are live in it.")
    added: Mapped[int] = mapped_column(
        comment="Items that are live in it and were not in the revision before."
    )
    changed: Mapped[int] = mapped_column(
        comment="Items that are live in both and differ in content or metadata."
    )
    removed: Mapped[int] = mapped_column(comment="Items that were live in the revision before.")
    created_at: Mapped[datetime] = mapped_column(
        server_default=func.now(), comment="When it was made."
    )


class StoredContent(Base):
    """The ordered typed parts of an item. Never changed; equal items share it."""

    __tablename__ = "content"
    __table_args__ = (
        CheckConstraint("jsonb_array_length(parts) > 0", name="has_parts"),
        {"comment": "What items consist of: ordered typed parts. Never changed, and shared."},
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True, comment="Row id.")
    digest: Mapped[bytes] = mapped_column(
        unique=True, comment="SHA-256 of the parts as text, addresses included."
    )
    parts: Mapped[list[Any]] = mapped_column(
        comment='[{"kind":"text","text":…} | {"kind":"image","uri":…,"sha256":…}, …]'
    )
    text_hash: Mapped[bytes | None] = mapped_column(comment="SHA-256 of the texts alone.")
    image_hash: Mapped[bytes | None] = mapped_column(comment="SHA-256 of the images alone.")
    content_hash: Mapped[bytes] = mapped_column(comment="SHA-256 of all parts in order.")


class Item(Base):
    """One thing of a catalogue, by its id; what it consists of is in its versions."""

    __tablename__ = "item"
    __table_args__ = (
        UniqueConstraint("catalog_id", "external_id"),
        CheckConstraint("length(external_id) > 0", name="named"),
        {"comment": "One thing of a catalogue by its id; item_version holds what it consists of."},
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True, comment="Row id.")
    catalog_id: Mapped[int] = mapped_column(
        ForeignKey("catalog.id", ondelete="CASCADE"), comment="The catalogue that it belongs to."
    )
    external_id: Mapped[str] = mapped_column(comment="The item's id in its source.")
    import_id: Mapped[int | None] = mapped_column(
        ForeignKey("catalog_import.id", ondelete="SET NULL"),
        comment="The import that first brought it from its present source.",
    )


class ItemVersion(Base):
    """An item as it is in a range of revisions; in a revision without one it is gone."""

    __tablename__ = "item_version"
    __table_args__ = (
        CheckConstraint("first_revision BETWEEN 1 AND last_revision", name="revisions"),
        Index(
            "uq_item_version_current",
            "item_id",
            unique=True,
            postgresql_where=text(f"last_revision = {CURRENT}"),
        ),
        {"comment": "An item as it is in a range of revisions; live in those, gone in others."},
    )

    item_id: Mapped[int] = mapped_column(
        ForeignKey("item.id", ondelete="CASCADE"), primary_key=True, comment="The item."
    )
    first_revision: Mapped[int] = mapped_column(
        Integer, primary_key=True, comment="The first revision of its catalogue that has it."
    )
    last_revision: Mapped[int] = mapped_column(
        Integer,
        server_default=str(CURRENT),
        comment=f"The last one; {CURRENT} while no later revision has replaced it.",
    )
    content_id: Mapped[int] = mapped_column(
        ForeignKey("content.id"), index=True, comment="What it consists of."
    )
    extra: Mapped[dict[str, Any]] = mapped_column(
        "metadata", server_default="{}", comment="What came along; no model sees it."
    )
