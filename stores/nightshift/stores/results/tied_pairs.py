"""Tied pairs of a run whose order an entropy decides."""

from collections.abc import Iterator

from sqlalchemy import Connection, text

from nightshift.stores.ledger.run_types import RerankRun

__all__ = ["tied_pairs"]


def tied_pairs(
    connection: Connection, run: RerankRun, *, quantum: float, fusion: float, guard: bool
) -> Iterator[tuple[int, list[int]]]:
    """Pairs whose tie is decided by an entropy that is not known yet; of equal pairs only one.

    `scoring.tie_break` has the same rule: scores tie that are equal after rounding down to the
    quantum, and entropy decides above one half. Scores are fused on the scale `raw`:
    `producers.resolve` refuses another one for runs whose ties are asked about.

    Yields:
        (query id, item ids), sorted.
    """
    rows = connection.execute(
        _TIED_PAIRS,
        {
            "run": run.id,
            "scorer": run.scorer_number,
            "quantum": quantum,
            "fusion": fusion,
            "guard": guard,
        },
    )
    for row in rows:
        yield int(row.query_id), [int(item_id) for item_id in row.items]


# Finds the pairs of one query whose scores are equal after rounding down, and lack an entropy. The
# margin is bounded because exp() of Postgres raises an error where the result is 0 or infinite.
_TIED_PAIRS = text("""
    WITH scored AS (
        SELECT c.query_id, c.item_id, c.score_id, s.entropy, floor((:fusion * c.coarse_score
            + (1 - :fusion) / (1 + exp(-greatest(least(s.margin::double precision, 700), -700))))
            / :quantum + 1e-5) AS level
        FROM candidate c JOIN score s ON s.scorer = :scorer AND s.id = c.score_id
        WHERE c.run_id = :run
    ), tied AS (
        SELECT *, count(*) OVER (PARTITION BY query_id, level) AS size FROM scored
    )
    SELECT query_id, array_agg(item_id ORDER BY item_id) AS items
    FROM (
        SELECT DISTINCT ON (score_id) query_id, item_id FROM tied
        WHERE size > 1 AND entropy IS NULL
            AND (NOT :guard OR level * :quantum > 0.5 + 1e-5)
        ORDER BY score_id, query_id, item_id
    ) AS distinct_pair
    GROUP BY query_id ORDER BY query_id
""")
