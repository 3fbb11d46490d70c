"""Postgres: which worker loaded which weights from which files, for results to be traced to."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Identity, func
from sqlalchemy.orm import Mapped, mapped_column

from nightshift.schema.tables import Base

__all__ = ["ModelLoad"]


class ModelLoad(Base):
    """Weights that one worker loaded; each result names the load that it comes of."""

    __tablename__ = "model_load"
    __table_args__ = (
        CheckConstraint("jsonb_typeof(files) = 'array'", name="files"),
        CheckConstraint("(changed_at IS NULL) = (changed_file IS NULL)", name="changed"),
        {"comment": "Weights that one worker loaded; each result names its load."},
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True, comment="Row id.")
    worker_id: Mapped[str] = mapped_column(comment="The worker, as worker.id named it.")
    spec: Mapped[str] = mapped_column(comment="The model for which they were loaded first.")
    fingerprint: Mapped[str] = mapped_column(comment="Of that model; others may share its weights.")
    files: Mapped[list[Any]] = mapped_column(
        comment="Of each file path, device, inode, size, and times of change in ns since 1970."
    )
    loaded_at: Mapped[datetime] = mapped_column(
        server_default=func.now(), comment="When they were in memory."
    )
    changed_at: Mapped[datetime | None] = mapped_column(
        comment="When the worker saw that a file had changed under it; empty where none did."
    )
    changed_file: Mapped[str | None] = mapped_column(comment="The file that changed.")
    dropped_at: Mapped[datetime | None] = mapped_column(
        comment="When an operator deleted what came of it; empty unless one did."
    )
