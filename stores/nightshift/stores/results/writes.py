"""Writing results: always inside the transaction that marks the job done."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

from sqlalchemy import Connection, text

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
    """See table `candidate`."""

    run_id: int
    query_id: int
    item_id: int
    coarse_rank: int
    coarse_score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PairScoreRow:
    """See table `pair_score`."""

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
    #: Margin without the enhancement; None where it was not compared.
    plain_margin: float | None
    #: What the model wrote, where that is the score.
    written: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingRow:
    """See table `ranking`."""

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
    """A candidate with its score; the score's fields are None where scoring the pair failed."""

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
    """Keep what the coarse search found, with the load of the embedder."""
    _copy(connection, "candidate", CandidateRow, rows, load_id=load_id)


def write_scores(
    connection: Connection, rows: Iterable[PairScoreRow], load_id: int | None = None
) -> None:
    """Keep what the scorer read, with its load."""
    _copy(connection, "pair_score", PairScoreRow, rows, load_id=load_id)


def write_tie_entropies(connection: Connection, run_id: int, rows: Sequence[PairScoreRow]) -> None:
    """Add to written scores what the second question about tied pairs read; scores stay."""
    connection.execute(
        text(
            """
            UPDATE pair_score p SET logit_positive = new.positive, logit_negative = new.negative,
                logsumexp = new.logsumexp, entropy = new.entropy
            FROM unnest(CAST(:queries AS bigint[]), CAST(:items AS bigint[]),
                CAST(:positive AS real[]), CAST(:negative AS real[]),
                CAST(:logsumexp AS real[]), CAST(:entropy AS real[]))
                AS new(query_id, item_id, positive, negative, logsumexp, entropy)
            WHERE p.run_id = :run AND p.query_id = new.query_id AND p.item_id = new.item_id
            """
        ),
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
    """Keep final orders."""
    _copy(connection, "ranking", RankingRow, rows)


def write_calibration(
    connection: Connection, *, run_id: int, job_id: int, statistics: dict[str, Any]
) -> None:
    """Keep the statistics of one rank job."""
    connection.execute(
        text(
            "INSERT INTO calibration (run_id, job_id, statistics) "
            "VALUES (:run, :job, :statistics) ON CONFLICT DO NOTHING"
        ),
        {"run": run_id, "job": job_id, "statistics": json.dumps(statistics)},
    )


def load_scored_candidates(
    connection: Connection, run_id: int, query_ids: Sequence[int]
) -> dict[int, list[ScoredCandidate]]:
    """Candidates by query, in coarse order."""
    rows = connection.execute(
        text(
            """
            SELECT c.query_id, c.item_id, c.coarse_rank, c.coarse_score, p.margin, p.entropy,
                p.fired, p.fired_layer, p.plain_margin, p.reused_from IS NOT NULL AS reused
            FROM candidate c LEFT JOIN pair_score p ON p.run_id = c.run_id
                AND p.query_id = c.query_id AND p.item_id = c.item_id
            WHERE c.run_id = :run AND c.query_id = ANY(:queries)
            ORDER BY c.query_id, c.coarse_rank
            """
        ),
        {"run": run_id, "queries": list(query_ids)},
    )
    found: dict[int, list[ScoredCandidate]] = {query_id: [] for query_id in query_ids}
    for row in rows.mappings():
        found[row["query_id"]].append(ScoredCandidate(**row))
    return found


def _copy(
    connection: Connection, table: str, kind: type[Any], rows: Iterable[Any], **same: object
) -> None:
    """Copy rows, with columns that are the same for all of them."""
    columns = [*(field.name for field in fields(kind)), *same]
    copy_rows(connection, table, columns, ((*astuple(row), *same.values()) for row in rows))
