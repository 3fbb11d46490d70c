"""The score store: one row for each pair of contents under a scorer, used by every run.

Who takes the id of a score, and who deletes scores, hold the table against each other: a candidate
never names a score that is gone.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

from sqlalchemy import Connection, text

from nightshift.stores.ledger.run_types import RerankRun
from nightshift.stores.postgres.database import copy_into
from nightshift.stores.results.equal_pairs import known_score_sql

__all__ = [
    "PairScoreRow",
    "forget_lost_scores",
    "hold_scores",
    "keep_from_use",
    "refresh_statistics",
    "write_scores",
    "write_tie_entropies",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairScoreRow:
    """A score as its job writes it, with the key under which every run finds it."""

    query_id: int
    item_id: int
    pair_key: bytes
    margin: float
    logit_positive: float | None
    logit_negative: float | None
    logsumexp: float | None
    entropy: float | None
    fired: bool
    fired_layer: int | None
    uncertainty: float | None
    #: Margin without the enhancement; None if it was not computed.
    plain_margin: float | None
    #: Text that the model wrote, for scores that are read from text.
    written: str | None = None


def hold_scores(connection: Connection) -> None:
    """Let nobody delete scores before this transaction ends: it takes the ids of some."""
    connection.execute(_HOLD_SCORES)


def keep_from_use(connection: Connection) -> None:
    """Wait for those who take ids of scores, and let no other do so before this transaction ends.

    Who deletes scores calls it first, and takes their ids out of the candidates.
    """
    connection.execute(_KEEP_FROM_USE)


def write_scores(
    connection: Connection,
    run: RerankRun,
    rows: Sequence[PairScoreRow],
    load_id: int | None = None,
) -> None:
    """Keep the scores of pairs that have none, and give the run's candidates their ids.

    A pair that another run has scored meanwhile keeps that score.

    Args:
        connection: The transaction that marks the job done.
        run: The run that computed them.
        rows: What was read.
        load_id: The load of the scorer.
    """
    hold_scores(connection)
    if rows:
        _stage(connection, rows)
        values = {"run": run.id, "scorer": run.scorer_number}
        connection.execute(_INSERT_SCORES, {**values, "month": run.score_month, "load": load_id})
        connection.execute(_LINK_WRITTEN, values)


def write_tie_entropies(
    connection: Connection, run: RerankRun, rows: Sequence[PairScoreRow]
) -> None:
    """Add the logits and entropies of the second prompt to tied pairs; their scores stay.

    Where another run asked meanwhile, what it read stays.
    """
    if rows:
        _stage(connection, rows)
        connection.execute(_WRITE_TIE_ENTROPIES, {"run": run.id, "scorer": run.scorer_number})


def forget_lost_scores(connection: Connection, run: RerankRun) -> None:
    """Let the pairs of a run be scored again whose score is gone from the store."""
    hold_scores(connection)
    connection.execute(_FORGET_LOST_SCORES, {"run": run.id, "scorer": run.scorer_number})


def refresh_statistics(connection: Connection, run: RerankRun) -> None:
    """Let the planner of Postgres see the partition that a run has just filled."""
    partition = f"score_s{run.scorer_number}_{run.score_month:%Y%m}"
    connection.exec_driver_sql(f"ANALYZE {partition}")


def _stage(connection: Connection, rows: Sequence[PairScoreRow]) -> None:
    connection.execute(_DROP_STAGED)
    connection.execute(_STAGE)
    copy_into(connection, "new_score", _STAGED, (astuple(row) for row in rows))


# Locks that only deletions of scores conflict with.
_HOLD_SCORES = text("LOCK TABLE ONLY score IN ROW EXCLUSIVE MODE")

# A lock that conflicts with it, and not with reading.
_KEEP_FROM_USE = text("LOCK TABLE ONLY score IN EXCLUSIVE MODE")

_STAGED = [field.name for field in fields(PairScoreRow)]
_READINGS = ", ".join(_STAGED[2:])

_DROP_STAGED = text("DROP TABLE IF EXISTS new_score")

# Makes a table for what a job has read.
_STAGE = text(f"""
    CREATE TEMP TABLE new_score ON COMMIT DROP AS
    SELECT 0::bigint AS query_id, 0::bigint AS item_id, {_READINGS} FROM score WITH NO DATA
""")

# Inserts what was read of pairs without a score, in the order of their keys: jobs that insert the
# same ones wait for each other, and never in a ring.
_INSERT_SCORES = text(f"""
    INSERT INTO score (scorer, month, run_id, load_id, {_READINGS})
    SELECT :scorer, CAST(:month AS date), :run, CAST(:load AS bigint), {_READINGS}
    FROM (SELECT DISTINCT ON (pair_key) * FROM new_score
        ORDER BY pair_key, query_id, item_id) AS new
    WHERE NOT EXISTS (
        SELECT FROM score s WHERE s.scorer = :scorer AND s.pair_key = new.pair_key)
    ORDER BY pair_key
    ON CONFLICT DO NOTHING
""")

# Gives candidates the scores of what was read; a statement of its own, to see what others inserted.
_LINK_WRITTEN = text(f"""
    UPDATE candidate c SET score_id = known.id
    FROM new_score n CROSS JOIN LATERAL {known_score_sql("n.pair_key")} AS known
    WHERE c.run_id = :run AND c.query_id = n.query_id AND c.item_id = n.item_id
        AND c.score_id IS DISTINCT FROM known.id
""")

# Adds logits and entropies to scores that have none, locked in the order of their ids.
_WRITE_TIE_ENTROPIES = text("""
    WITH asked AS MATERIALIZED (
        SELECT DISTINCT ON (c.score_id) c.score_id, n.logit_positive, n.logit_negative,
            n.logsumexp, n.entropy
        FROM new_score n JOIN candidate c ON c.run_id = :run AND c.query_id = n.query_id
            AND c.item_id = n.item_id
        ORDER BY c.score_id, n.query_id, n.item_id
    ), locked AS MATERIALIZED (
        SELECT s.id FROM score s WHERE s.scorer = :scorer AND s.entropy IS NULL
            AND s.id IN (SELECT score_id FROM asked)
        ORDER BY s.id FOR NO KEY UPDATE
    )
    UPDATE score s SET logit_positive = asked.logit_positive,
        logit_negative = asked.logit_negative, logsumexp = asked.logsumexp,
        entropy = asked.entropy
    FROM asked JOIN locked ON locked.id = asked.score_id
    WHERE s.scorer = :scorer AND s.id = asked.score_id AND s.entropy IS NULL
""")

# Takes out of candidates the ids of scores that are gone.
_FORGET_LOST_SCORES = text("""
    UPDATE candidate c SET score_id = NULL
    WHERE c.run_id = :run AND c.score_id IS NOT NULL AND NOT EXISTS (
        SELECT FROM score s WHERE s.scorer = :scorer AND s.id = c.score_id)
""")
