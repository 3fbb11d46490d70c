"""Postgres: leases and workers, by which processes know of each other."""

from datetime import datetime

from sqlalchemy import func
from sqlalchemy.orm import Mapped, mapped_column

from nightshift.schema.tables import Base

__all__ = ["Lease", "Worker"]


class Lease(Base):
    """A named right that one process holds at a time: the dispatcher's, a Milvus Lite writer's."""

    __tablename__ = "lease"
    __table_args__ = {"comment": "Named rights held by one process at a time."}

    name: Mapped[str] = mapped_column(
        primary_key=True, comment="What is held: dispatcher, or milvus-writer."
    )
    holder: Mapped[str] = mapped_column(comment="Who holds it; empty once it was given back.")
    token: Mapped[int] = mapped_column(
        comment="Fencing token: one higher with each change of holder."
    )
    expires_at: Mapped[datetime] = mapped_column(
        comment="When another may take it unless it is renewed."
    )


class Worker(Base):
    """A worker process as it last reported itself; liveness of jobs is judged by leases alone."""

    __tablename__ = "worker"
    __table_args__ = {"comment": "Worker processes as they last reported themselves."}

    id: Mapped[str] = mapped_column(primary_key=True, comment="host:pid:random")
    host: Mapped[str] = mapped_column(comment="The machine that it runs on.")
    pid: Mapped[int] = mapped_column(comment="Its process there.")
    device: Mapped[str] = mapped_column(comment="Where its models run, such as cpu or cuda:0.")
    stages: Mapped[str] = mapped_column(comment="Stages that it serves, separated by commas.")
    model: Mapped[str | None] = mapped_column(comment="Fingerprint of the weights it has loaded.")
    run_id: Mapped[int | None] = mapped_column(
        comment="The run that it works or loads for; empty while idle."
    )
    job_id: Mapped[int | None] = mapped_column(comment="The job in hand; empty while idle.")
    units_per_s: Mapped[float | None] = mapped_column(comment="Over its last job.")
    loading: Mapped[str | None] = mapped_column(
        comment="Fingerprint of the weights that it is loading for its run."
    )
    loading_since: Mapped[datetime | None] = mapped_column(comment="When that load began.")
    started_at: Mapped[datetime] = mapped_column(
        server_default=func.now(), comment="When it started."
    )
    seen_at: Mapped[datetime] = mapped_column(
        server_default=func.now(),
        index=True,
        comment="When it last reported, as it does every few seconds.",
    )
    stopped_at: Mapped[datetime | None] = mapped_column(
        comment="When it stopped in an orderly way; empty while it runs, and where it was killed."
    )
