"""Loads of weights: the results of each, and their deletion when its files cannot be trusted.

A worker that sees a file of its model change writes nothing of its current job. Earlier jobs were
checked in the same way; an operator who still doubts their results can drop them.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Connection, func, insert, select, text, update

from nightshift.schema.errors import ModelError, NotFoundError
from nightshift.schema.load_tables import ModelLoad
from nightshift.schema.result_tables import Answer, Candidate
from nightshift.schema.score_tables import Score
from nightshift.schema.tables import Embedding
from nightshift.schema.token_tables import TokenShard
from nightshift.stores.results.scores import keep_from_use

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
    """Counts of the results of a load that exist, or that were deleted."""

    scores: int
    vectors: int
    candidates: int
    shards: int
    answers: int

    def __bool__(self) -> bool:
        return any(asdict(self).values())

    def text(self) -> str:
        """Format the counts, such as `64 scores, 12 vectors`."""
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
    """Record that a worker has loaded weights, and return the id of the load."""
    load_id = connection.execute(
        insert(ModelLoad)
        .values(worker_id=worker_id, spec=spec, fingerprint=fingerprint, files=list(files))
        .returning(ModelLoad.id)
    ).scalar_one()
    return int(load_id)


def record_change(connection: Connection, load_id: int, file: str) -> None:
    """Record that a file of a load changed after it was read."""
    connection.execute(
        update(ModelLoad)
        .where(ModelLoad.id == load_id, ModelLoad.changed_at.is_(None))
        .values(changed_at=func.clock_timestamp(), changed_file=file)
    )


def refuse_dropped(connection: Connection, load_id: int | None) -> None:
    """Lock a load, so that nobody drops it before this transaction ends.

    Raises:
        ModelError: It was dropped, so none of its results may be written.
    """
    dropped_at = connection.execute(
        select(ModelLoad.dropped_at).where(ModelLoad.id == load_id).with_for_update(read=True)
    ).scalar()
    if dropped_at is not None:
        raise ModelError(
            f"what came of load {load_id} was dropped by an operator, so nothing more of it is "
            "kept; the model is loaded again"
        )


def suspect_loads(connection: Connection) -> list[SuspectLoad]:
    """Loads with results whose files changed after they were read, the latest first."""
    rows = connection.execute(
        select(
            ModelLoad.id,
            ModelLoad.worker_id,
            ModelLoad.spec,
            ModelLoad.changed_at,
            ModelLoad.changed_file,
        )
        .where(ModelLoad.changed_at.is_not(None), ModelLoad.dropped_at.is_(None))
        .order_by(ModelLoad.id.desc())
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
    """Delete all results of a load, and in all runs what was ranked from them.

    Finished runs then lack results: `doctor --repair` reopens them. The next `index build` makes
    the vectors, the next `tokens build` the tokens.

    Raises:
        NotFoundError: There is no such load.
    """
    known = connection.execute(
        update(ModelLoad)
        .where(ModelLoad.id == load_id)
        .values(dropped_at=func.coalesce(ModelLoad.dropped_at, func.clock_timestamp()))
    )
    if not known.rowcount:
        raise NotFoundError(f"there is no load {load_id}; `nightshift doctor` names those in doubt")
    # After the load, as who writes scores does.
    keep_from_use(connection)
    kept = _kept(connection, load_id)
    for statement in _DELETIONS:
        connection.execute(statement, {"load": load_id})
    return kept


def _kept(connection: Connection, load_id: int) -> Dropped:
    """Count the results of a load."""
    tables = {
        "scores": Score.load_id,
        "vectors": Embedding.load_id,
        "candidates": Candidate.load_id,
        "shards": TokenShard.load_id,
        "answers": Answer.load_id,
    }
    counts = {
        name: select(func.count()).where(column == load_id).scalar_subquery().label(name)
        for name, column in tables.items()
    }
    row = connection.execute(select(*counts.values())).mappings().one()
    return Dropped(**row)


# Deletes the results of a load in this order. Rankings and answers go with the candidates and
# scores that they were made from.
_DELETIONS = (
    text("""
        CREATE TEMP TABLE score_in_doubt ON COMMIT DROP AS
        SELECT id FROM score WHERE load_id = :load
    """),
    text("""
        CREATE TEMP TABLE in_doubt ON COMMIT DROP AS
        SELECT run_id, query_id FROM candidate
        WHERE load_id = :load OR score_id IN (SELECT id FROM score_in_doubt)
        GROUP BY run_id, query_id
    """),
    *(
        text(
            f"DELETE FROM {table} t USING in_doubt d WHERE t.run_id = d.run_id "
            "AND t.query_id = d.query_id"
        )
        for table in ("ranking", "answer")
    ),
    text("""
        UPDATE candidate SET score_id = NULL WHERE score_id IN (SELECT id FROM score_in_doubt)
    """),
    *(
        text(f"DELETE FROM {table} WHERE load_id = :load")
        for table in ("candidate", "score", "answer", "embedding", "token_shard")
    ),
)
