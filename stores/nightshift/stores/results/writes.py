"""Writing results: always inside the transaction that marks the job done."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import product
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.dialects.postgresql import insert

from nightshift.schema.columns_of import columns_of
from nightshift.schema.result_tables import Calibration, Ranking
from nightshift.schema.tables import Base
from nightshift.stores.catalog.contents import HASH_COLUMN
from nightshift.stores.ledger.run_types import RerankRun
from nightshift.stores.postgres.database import copy_into, copy_rows
from nightshift.stores.results.equal_pairs import known_score_sql, pair_key_sql
from nightshift.stores.results.scores import hold_scores

__all__ = [
    "CandidateRow",
    "RankingRow",
    "ScoredCandidate",
    "load_scored_candidates",
    "write_calibration",
    "write_candidates",
    "write_rankings",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateRow:
    """An item that the search found for a query."""

    query_id: int
    item_id: int
    content_id: int
    coarse_rank: int
    coarse_score: float


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
    connection: Connection,
    run: RerankRun,
    rows: Iterable[CandidateRow],
    load_id: int | None = None,
) -> None:
    """Write the candidates of the coarse search, each with its score where the store has it.

    Args:
        connection: The transaction that marks the job done.
        run: The run that searched.
        rows: What was found, all candidates of each query together.
        load_id: The load of the embedder.
    """
    hold_scores(connection)
    connection.execute(_DROP_STAGED)
    connection.execute(_STAGE)
    copy_into(connection, "new_candidate", _STAGED, (astuple(row) for row in rows))
    params = run.params
    connection.execute(
        _INSERT_CANDIDATES[
            params.query_parts, params.item_parts, params.scorer.score == "listwise"
        ],
        {
            "run": run.id,
            "load": load_id,
            "fingerprint": run.scorer_fingerprint,
            "scorer": run.scorer_number,
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
    connection: Connection, run: RerankRun, query_ids: Sequence[int]
) -> dict[int, list[ScoredCandidate]]:
    """Candidates by query, in coarse order."""
    rows = connection.execute(
        _SCORED_CANDIDATES,
        {"run": run.id, "scorer": run.scorer_number, "queries": list(query_ids)},
    )
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


_STAGED = [field.name for field in fields(CandidateRow)]

_DROP_STAGED = text("DROP TABLE IF EXISTS new_candidate")

# Makes a table for what a search has found.
_STAGE = text(f"""
    CREATE TEMP TABLE new_candidate ON COMMIT DROP AS
    SELECT {", ".join(_STAGED)} FROM candidate WITH NO DATA
""")

# By parts, and whether candidates are scored as lists: writes what was found, with known scores.
_INSERT_CANDIDATES = {
    (query_parts, item_parts, lists): text(f"""
        WITH keyed AS MATERIALIZED (
            SELECT c.*, {pair_key_sql(query_parts, item_parts, lists=lists)} AS pair_key
            FROM new_candidate c LEFT JOIN query q ON q.id = c.query_id
            LEFT JOIN content ON content.id = c.content_id
        )
        INSERT INTO candidate (run_id, load_id, score_id, {", ".join(_STAGED)})
        SELECT :run, CAST(:load AS bigint), known.id, {", ".join(_STAGED)}
        FROM keyed LEFT JOIN LATERAL {known_score_sql("keyed.pair_key")} AS known ON true
        ON CONFLICT DO NOTHING
    """)
    for query_parts, item_parts, lists in product(HASH_COLUMN, HASH_COLUMN, (False, True))
}

# Lists the candidates of queries in coarse order, with their scores where they have one.
_SCORED_CANDIDATES = text("""
    SELECT c.query_id, c.item_id, c.coarse_rank, c.coarse_score, s.margin, s.entropy,
        s.fired, s.fired_layer, s.plain_margin, coalesce(s.run_id <> c.run_id, false) AS reused
    FROM candidate c LEFT JOIN score s ON s.scorer = :scorer AND s.id = c.score_id
    WHERE c.run_id = :run AND c.query_id = ANY(:queries)
    ORDER BY c.query_id, c.coarse_rank
""")
