"""Loads of weights: what was computed with each, and what goes when its files cannot be trusted.

A worker that sees a file of its model change keeps nothing of the job in hand. What it kept before
was looked at in the same way; an operator who doubts it all the same can drop it.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from nightshift.schema.errors import ModelError, NotFoundError

__all__ = [
    "Dropped",
    "SuspectLoad",
    "drop_load",
    "record_change",
    "record_load",
    "refuse_dropped",
    "suspect_loads",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """What is kept of a load, or was deleted of it."""

    scores: int
    vectors: int
    candidates: int
    shards: int
    answers: int

    def __bool__(self) -> bool:
        return any(asdict(self).values())

    def text(self) -> str:
        """Such as `64 scores, 12 vectors`."""
        named = (f"{count:,} {name}" for name, count in asdict(self).items() if count)
        return ", ".join(named) or "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspectLoad:
    """A load whose files changed while a worker had them in memory."""

    id: int
    worker_id: str
    spec: str
    changed_at: datetime
    changed_file: str
    kept: Dropped


def record_load(
    connection: Connection, *, worker_id: str, spec: str, fingerprint: str, files: Sequence[object]
) -> int:
    """Note that a worker has loaded weights; returns the load's number."""
    return int(
        connection.execute(
            text(
                "INSERT INTO model_load (worker_id, spec, fingerprint, files) "
                "VALUES (:worker, :spec, :fingerprint, CAST(:files AS jsonb)) RETURNING id"
            ),
            {
                "worker": worker_id,
                "spec": spec,
                "fingerprint": fingerprint,
                "files": json.dumps(files),
            },
        ).scalar_one()
    )


def record_change(connection: Connection, load_id: int, file: str) -> None:
    """Note that a file of a load changed under it."""
    connection.execute(
        text(
            "UPDATE model_load SET changed_at = clock_timestamp(), changed_file = :file "
            "WHERE id = :load AND changed_at IS NULL"
        ),
        {"load": load_id, "file": file},
    )


def refuse_dropped(connection: Connection, load_id: int | None) -> None:
    """Keep a load from being dropped before this transaction ends.

    Raises:
        ModelError: It was dropped: nothing more of it is kept.
    """
    dropped_at = connection.execute(
        text("SELECT dropped_at FROM model_load WHERE id = :load FOR SHARE"), {"load": load_id}
    ).scalar()
    if dropped_at is not None:
        raise ModelError(
            f"what came of load {load_id} was dropped by an operator, so nothing more of it is "
            "kept; the model is loaded again"
        )


def suspect_loads(connection: Connection) -> list[SuspectLoad]:
    """Loads whose files changed under them and of which something is kept, the latest first."""
    rows = connection.execute(
        text(
            "SELECT id, worker_id, spec, changed_at, changed_file FROM model_load "
            "WHERE changed_at IS NOT NULL AND dropped_at IS NULL ORDER BY id DESC"
        )
    ).all()
    loads = (
        SuspectLoad(
            id=row.id,
            worker_id=row.worker_id,
            spec=row.spec,
            changed_at=row.changed_at,
            changed_file=row.changed_file,
            kept=_kept(connection, row.id),
        )
        for row in rows
    )
    return [load for load in loads if load.kept]


def drop_load(connection: Connection, load_id: int) -> Dropped:
    """Delete all that comes of a load, in later runs that reused it too, and never reuse it.

    Runs that are done then lack results: `doctor --repair` takes them up again. Vectors are made
    again by the next `index build`, tokens by the next `tokens build`.

    Raises:
        NotFoundError: There is no such load.
    """
    known = connection.execute(
        text(
            "UPDATE model_load SET dropped_at = coalesce(dropped_at, clock_timestamp()) "
            "WHERE id = :load"
        ),
        {"load": load_id},
    )
    if not known.rowcount:
        raise NotFoundError(f"there is no load {load_id}; `nightshift doctor` names those in doubt")
    kept = _kept(connection, load_id)
    for statement in _DELETIONS:
        connection.execute(text(statement), {"load": load_id})
    return kept


def _kept(connection: Connection, load_id: int) -> Dropped:
    row = connection.execute(
        text(
            """
            SELECT (SELECT count(*) FROM pair_score WHERE load_id = :load) AS scores,
                (SELECT count(*) FROM embedding WHERE load_id = :load) AS vectors,
                (SELECT count(*) FROM candidate WHERE load_id = :load) AS candidates,
                (SELECT count(*) FROM token_shard WHERE load_id = :load) AS shards,
                (SELECT count(*) FROM answer WHERE load_id = :load) AS answers
            """
        ),
        {"load": load_id},
    ).one()
    return Dropped(**row._mapping)  # noqa: SLF001 - SQLAlchemy's documented name


# Rankings and answers hold what they were made from. The scores of a query that is searched again
# go too: its candidates may become others.
_DELETIONS = (
    """
    CREATE TEMP TABLE in_doubt ON COMMIT DROP AS
    SELECT run_id, query_id FROM candidate WHERE load_id = :load
    UNION SELECT run_id, query_id FROM pair_score WHERE load_id = :load
    """,
    *(
        f"DELETE FROM {table} t USING in_doubt d WHERE t.run_id = d.run_id "
        "AND t.query_id = d.query_id"
        for table in ("ranking", "answer")
    ),
    """
    DELETE FROM pair_score p USING candidate c WHERE c.load_id = :load AND p.run_id = c.run_id
        AND p.query_id = c.query_id
    """,
    "DELETE FROM candidate WHERE load_id = :load",
    "DELETE FROM pair_score WHERE load_id = :load",
    "DELETE FROM answer WHERE load_id = :load",
    "DELETE FROM embedding WHERE load_id = :load",
    "DELETE FROM token_shard WHERE load_id = :load",
)
