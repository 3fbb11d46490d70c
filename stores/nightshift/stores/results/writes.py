"""Writing results: always inside the transaction that marks the job done."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.dialects.postgresql import insert

from nightshift.schema.columns_of import columns_of
from nightshift.schema.result_tables import Calibration, Candidate, PairScore, Ranking
from nightshift.schema.tables import Base
from nightshift.stores.postgres.database import copy_rows

__all__ = [
    "CandidateRow",
    "PairScoreRow",
    "RankingRow",
    "ScoredCandidate",
    "load_scored_candidates",
    "write_calibration",
    "write_candidates",
    "write_rankings",
    "write_scores",
    "write_tie_entropies",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateRow:
    """A row of table `candidate`."""

    run_id: int
    query_id: int
    item_id: int
    coarse_rank: int
    coarse_score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PairScoreRow:
    """A row of table `pair_score`."""

    run_id: int
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


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingRow:
    """A row of table `ranking`."""

    run_id: int
    query_id: int
    final_rank: int
    item_id: int
    coarse_rank: int
    coarse_score: float
    margin: float | None
    probability: float | None
    entropy: float | None
    fired: bool | None
    fired_layer: int | None
    tie_group: int | None
    tie_size: int | None
    decided_by: str
    scorer_fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredCandidate:
    """A candidate with its score; the score's fields are None if scoring the pair failed."""

    query_id: int
    item_id: int
    coarse_rank: int
    coarse_score: float
    margin: float | None
    entropy: float | None
    fired: bool | None
    fired_layer: int | None
    plain_margin: float | None
    reused: bool


def write_candidates(
    connection: Connection, rows: Iterable[CandidateRow], load_id: int | None = None
) -> None:
    """Write the candidates of the coarse search, with the load of the embedder."""
    _copy(connection, Candidate, CandidateRow, rows, load_id=load_id)


def write_scores(
    connection: Connection, rows: Iterable[PairScoreRow], load_id: int | None = None
) -> None:
    """Write scores, with the load of the scorer."""
    _copy(connection, PairScore, PairScoreRow, rows, load_id=load_id)


def write_tie_entropies(connection: Connection, run_id: int, rows: Sequence[PairScoreRow]) -> None:
    """Add the logits and entropies of the second prompt to tied pairs; their scores stay."""
    connection.execute(
        _WRITE_TIE_ENTROPIES,
        {
            "run": run_id,
            "queries": [row.query_id for row in rows],
            "items": [row.item_id for row in rows],
            "positive": [row.logit_positive for row in rows],
            "negative": [row.logit_negative for row in rows],
            "logsumexp": [row.logsumexp for row in rows],
            "entropy": [row.entropy for row in rows],
        },
    )


def write_rankings(connection: Connection, rows: Iterable[RankingRow]) -> None:
    """Write final rankings."""
    _copy(connection, Ranking, RankingRow, rows)


def write_calibration(
    connection: Connection, *, run_id: int, job_id: int, statistics: dict[str, Any]
) -> None:
    """Write the calibration statistics of one rank job."""
    connection.execute(
        insert(Calibration)
        .values(run_id=run_id, job_id=job_id, statistics=statistics)
        .on_conflict_do_nothing()
    )


def load_scored_candidates(
    connection: Connection, run_id: int, query_ids: Sequence[int]
) -> dict[int, list[ScoredCandidate]]:
    """Candidates by query, in coarse order."""
    rows = connection.execute(_SCORED_CANDIDATES, {"run": run_id, "queries": list(query_ids)})
    candidates: dict[int, list[ScoredCandidate]] = {query_id: [] for query_id in query_ids}
    for row in rows.mappings():
        candidates[row["query_id"]].append(ScoredCandidate(**row))
    return candidates


def _copy(
    connection: Connection,
    table: type[Base],
    kind: type[Any],
    rows: Iterable[Any],
    **same: object,
) -> None:
    """Copy rows into a table, with columns that are the same for all of them."""
    columns = [*(column.key for column in columns_of(kind, table)), *same]
    copy_rows(
        connection,
        table.__tablename__,
        columns,
        ((*astuple(row), *same.values()) for row in rows),
    )


# Adds logits and entropies to scores that are written already.
_WRITE_TIE_ENTROPIES = text("""
    UPDATE pair_score p SET logit_positive = new.positive, logit_negative = new.negative,
        logsumexp = new.logsumexp, entropy = new.entropy
    FROM unnest(CAST(:queries AS bigint[]), CAST(:items AS bigint[]),
        CAST(:positive AS real[]), CAST(:negative AS real[]),
        CAST(:logsumexp AS real[]), CAST(:entropy AS real[]))
        AS new(query_id, item_id, positive, negative, logsumexp, entropy)
    WHERE p.run_id = :run AND p.query_id = new.query_id AND p.item_id = new.item_id
""")

# Lists the candidates of queries in coarse order, with their scores where they have one.
_SCORED_CANDIDATES = text("""
    SELECT c.query_id, c.item_id, c.coarse_rank, c.coarse_score, p.margin, p.entropy,
        p.fired, p.fired_layer, p.plain_margin, p.reused_from IS NOT NULL AS reused
    FROM candidate c LEFT JOIN pair_score p ON p.run_id = c.run_id
        AND p.query_id = c.query_id AND p.item_id = c.item_id
    WHERE c.run_id = :run AND c.query_id = ANY(:queries)
    ORDER BY c.query_id, c.coarse_rank
""")
