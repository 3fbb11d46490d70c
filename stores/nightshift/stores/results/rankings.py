"""Rankings as stored: read by a server-side cursor, a page in memory at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection, select, text

from nightshift.schema.errors import ConflictError, NotFoundError
from nightshift.schema.result_tables import Calibration
from nightshift.stores.ledger.run_types import RerankRun
from nightshift.stores.ledger.runs import get_run
from nightshift.stores.results.ranked_items import PAGE_ROWS, RankedItem, RankingStream

__all__ = [
    "JudgedQuery",
    "MarginShift",
    "RankedItem",
    "Winners",
    "find_query",
    "judged_queries",
    "load_statistics",
    "margin_shifts",
    "require_rerank",
    "stream_rankings",
    "uncertainties",
    "winners",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedQuery:
    """The relevant items of one query, and both orders of the run."""

    query: str
    #: Graded relevance by external item id; only what is relevant (> 0).
    relevant: dict[str, int]
    #: External item ids, best first; empty where the query has no ranking.
    coarse: tuple[str, ...]
    fine: tuple[str, ...]
    #: True if a failure is recorded in place of a ranking.
    failed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Winners:
    """The first items of one query, before and after fine scoring."""

    query_id: int
    #: True if the same item is first in both.
    same: bool
    #: Whether the first item is relevant; None if the query has no judgements.
    coarse_right: bool | None
    fine_right: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MarginShift:
    """The mean change of margins by the enhancement, over pairs on which it acted."""

    pairs: int
    #: Log-odds with it minus log-odds without it.
    mean: float


def require_rerank(connection: Connection, run_id: int) -> RerankRun:
    """A run that ranks.

    Raises:
        NotFoundError: Where there is no such run.
        ConflictError: For an index run.
    """
    run = get_run(connection, run_id)
    if not isinstance(run, RerankRun):
        raise ConflictError(
            f"run {run_id} builds an index and ranks nothing; `nightshift run list` shows the "
            "rerank runs"
        )
    return run


def find_query(connection: Connection, run_id: int, external_id: str) -> int:
    """The row id of one query of a run's query set.

    Raises:
        NotFoundError: Where the set has no such query.
    """
    query_id = connection.execute(_FIND_QUERY, {"run": run_id, "id": external_id}).scalar()
    if query_id is None:
        raise NotFoundError(
            f"run {run_id} has no query {external_id!r}; `nightshift results {run_id}` shows ids"
        )
    return int(query_id)


def stream_rankings(
    connection: Connection,
    run_id: int,
    *,
    query_ids: Sequence[int] | None = None,
    limit: int | None = None,
) -> RankingStream:
    """Rankings of a run in the order of its queries, best item first.

    Args:
        connection: A transaction that stays open while the rows are read.
        run_id: The run.
        query_ids: Only these queries; all if None.
        limit: Maximum number of rows.

    Returns:
        Rows, a page of them in memory at a time.
    """
    statement = _RANKINGS if query_ids is None else _RANKINGS_OF_QUERIES
    queries = {} if query_ids is None else {"queries": list(query_ids)}
    rows = connection.execute(statement, {"run": run_id, "limit": limit, **queries})
    return RankingStream(rows)


def judged_queries(connection: Connection, run_id: int) -> Iterator[JudgedQuery]:
    """Every judged query of a run, with both orders; one that was not ranked has empty orders.

    Args:
        connection: A transaction that stays open while the rows are read.
        run_id: A rerank run.
    """
    rows = connection.execute(_JUDGED_QUERIES, {"run": run_id})
    for row in rows:
        yield JudgedQuery(
            query=row.query,
            relevant=row.relevant,
            coarse=tuple(row.coarse or ()),
            fine=tuple(row.fine or ()),
            failed=row.failed,
        )


def winners(connection: Connection, run_id: int) -> list[Winners]:
    """The first of both orders for every ranked query of a run, in query order."""
    rows = connection.execute(_WINNERS, {"run": run_id})
    return [Winners(**row) for row in rows.mappings()]


def margin_shifts(connection: Connection, run_id: int) -> dict[bool, MarginShift]:
    """The change of margins by the enhancement, for relevant and for other pairs.

    Of the pairs of judged queries on which it acted and that were scored without it too; empty
    where there are none. Summed exactly, so that no order of the rows changes a digit.
    """
    rows = connection.execute(_MARGIN_SHIFTS, {"run": run_id})
    return {row.relevant: MarginShift(pairs=row.pairs, mean=row.mean) for row in rows}


def uncertainties(connection: Connection, run_id: int) -> tuple[int, list[float]]:
    """Count the pairs on which the enhancement fired, and list the uncertainty of the others.

    Only pairs that the enhancement examined; uncertainties are those of the most uncertain layer,
    in falling order.
    """
    rows = connection.execute(_UNCERTAINTIES, {"run": run_id}).all()
    below = [float(row.uncertainty) for row in rows if not row.fired]
    return len(rows) - len(below), below


def load_statistics(connection: Connection, run_id: int) -> Iterator[dict[str, Any]]:
    """The statistics of a run's rank jobs, in job order."""
    yield from connection.scalars(
        select(Calibration.statistics)
        .where(Calibration.run_id == run_id)
        .order_by(Calibration.job_id)
        .execution_options(yield_per=PAGE_ROWS)
    )


# Finds a query of a run's query set.
_FIND_QUERY = text("""
    SELECT query.id FROM query JOIN run ON run.query_set_id = query.query_set_id
    WHERE run.id = :run AND query.external_id = :id
""")

_RANKING_COLUMNS = ", ".join(field.name for field in fields(RankedItem))

# Lists the rankings of a run, the best item of each query first.
_RANKINGS = text(f"""
    SELECT {_RANKING_COLUMNS} FROM v_ranking WHERE run_id = :run
    ORDER BY query_id, final_rank LIMIT :limit
""").execution_options(yield_per=PAGE_ROWS)

# Lists the rankings of some queries of a run.
_RANKINGS_OF_QUERIES = text(f"""
    SELECT {_RANKING_COLUMNS} FROM v_ranking WHERE run_id = :run AND query_id = ANY(:queries)
    ORDER BY query_id, final_rank LIMIT :limit
""").execution_options(yield_per=PAGE_ROWS)

# Lists the judged queries of a run with their relevant items and both orders.
_JUDGED_QUERIES = text("""
    SELECT q.external_id AS query, j.relevant, o.coarse, o.fine,
        EXISTS (SELECT FROM failure f WHERE f.run_id = :run AND f.fatal
            AND f.subject_kind = 'query' AND f.subject_id = q.external_id
            AND f.stage IN ('search', 'rank')) AS failed
    FROM run JOIN query q ON q.query_set_id = run.query_set_id
    CROSS JOIN LATERAL (
        SELECT jsonb_object_agg(item_external_id, relevance) AS relevant FROM qrel
        WHERE query_set_id = run.query_set_id AND query_external_id = q.external_id
            AND relevance > 0
    ) AS j
    CROSS JOIN LATERAL (
        SELECT array_agg(i.external_id ORDER BY r.coarse_rank) AS coarse,
            array_agg(i.external_id ORDER BY r.final_rank) AS fine
        FROM ranking r JOIN item i ON i.id = r.item_id
        WHERE r.run_id = :run AND r.query_id = q.id
    ) AS o
    WHERE run.id = :run AND j.relevant IS NOT NULL
    ORDER BY q.id
""").execution_options(yield_per=PAGE_ROWS)

# Compares, for each query, the first item of the coarse order with that of the final order.
_WINNERS = text("""
    SELECT v.query_id, bool_or(v.final_rank = 1 AND v.coarse_rank = 1) AS same,
        CASE WHEN bool_or(v.judged)
            THEN bool_or(v.coarse_rank = 1 AND v.right) END AS coarse_right,
        CASE WHEN bool_or(v.judged)
            THEN bool_or(v.final_rank = 1 AND v.right) END AS fine_right
    FROM (
        SELECT r.query_id, r.final_rank, r.coarse_rank, coalesce(r.relevance > 0, false)
            AS right, EXISTS (
                SELECT FROM qrel JOIN run ON run.query_set_id = qrel.query_set_id
                WHERE run.id = :run AND qrel.query_external_id = r.query) AS judged
        FROM v_ranking r
        WHERE r.run_id = :run AND (r.final_rank = 1 OR r.coarse_rank = 1)
    ) AS v
    GROUP BY v.query_id ORDER BY v.query_id
""")

# Lists the pairs that the enhancement examined, the most uncertain first.
_UNCERTAINTIES = text("""
    SELECT fired, uncertainty FROM v_pair_score
    WHERE run_id = :run AND uncertainty IS NOT NULL ORDER BY uncertainty DESC
""")

# Averages the change of margins, by whether the pair is relevant; exact, whatever the row order.
_MARGIN_SHIFTS = text("""
    SELECT coalesce(j.relevance > 0, false) AS relevant, count(*) AS pairs,
        avg((p.margin::float8 - p.plain_margin::float8)::numeric)::float8 AS mean
    FROM v_pair_score p
    JOIN query q ON q.id = p.query_id
    JOIN item i ON i.id = p.item_id
    LEFT JOIN qrel j ON j.query_set_id = q.query_set_id
        AND j.query_external_id = q.external_id AND j.item_external_id = i.external_id
    WHERE p.run_id = :run AND p.fired AND p.plain_margin IS NOT NULL
        AND EXISTS (SELECT FROM qrel WHERE qrel.query_set_id = q.query_set_id
            AND qrel.query_external_id = q.external_id)
    GROUP BY 1
""")
