"""Postgres: which images imports have read, so that an unchanged one is not read again."""

from datetime import datetime

from sqlalchemy import CheckConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from nightshift.schema.tables import Base

__all__ = ["KnownImage"]


class KnownImage(Base):
    """An image that an import has read: its address, how its file looked, and its digest."""

    __tablename__ = "known_image"
    __table_args__ = (
        CheckConstraint("length(address_hash) = 32 AND length(sha256) = 32", name="digests"),
        {"comment": "An image that an import has read; an unchanged one is not read again."},
    )

    address_hash: Mapped[bytes] = mapped_column(
        primary_key=True,
        comment="SHA-256 of its address, the place in an archive included; of an image without "
        "an address, of its digest.",
    )
    stamp: Mapped[str] = mapped_column(
        comment="Size in bytes and time of change in ns since 1970 of its file; `bytes` without "
        "an address."
    )
    sha256: Mapped[bytes] = mapped_column(comment="Of the bytes of the image.")
    decoded: Mapped[bool] = mapped_column(
        comment="Whether it was decoded; otherwise only its digest is known."
    )
    read_at: Mapped[datetime] = mapped_column(
        server_default=func.now(), comment="When an import last read it."
    )
