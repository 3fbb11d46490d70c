"""Pairs of equal contents share one score: an earlier run's, or the one computed in this run."""

from itertools import product

from sqlalchemy import Connection, exists, select, text

from nightshift.schema.ledger_tables import Failure
from nightshift.schema.states import Stage
from nightshift.stores.catalog.contents import HASH_COLUMN
from nightshift.stores.ledger.run_types import RerankRun
from nightshift.stores.results.pairs import UNSCORED
from nightshift.stores.results.slices import ALL_QUERIES, IN_QUERIES, query_range

__all__ = [
    "excuse_scored_pairs",
    "known_score_sql",
    "link_scores",
    "pair_key_sql",
    "share_failures",
]


def link_scores(
    connection: Connection,
    run: RerankRun,
    *,
    query_parts: str,
    item_parts: str,
    lists: bool = False,
    queries: tuple[int, int] = ALL_QUERIES,
) -> None:
    """Give the pairs of a run that have no score that of an equal pair, whoever computed it.

    Args:
        connection: The transaction that plans what comes next; it has called `hold_scores`.
        run: The run.
        query_parts: What the scorer sees of queries.
        item_parts: What it sees of items.
        lists: Whether it sees a query's candidates as a list: equal pairs are of equal lists.
        queries: Only pairs of queries from the first of these ids to the last.
    """
    connection.execute(
        _LINK_SCORES[query_parts, item_parts, lists],
        {
            "run": run.id,
            "fingerprint": run.scorer_fingerprint,
            "scorer": run.scorer_number,
            **query_range(queries),
        },
    )


def excuse_scored_pairs(connection: Connection, run_id: int) -> None:
    """Turn failures of pairs that have their score by now into notices.

    An image may be gone from one address and be read from another.
    """
    failed = exists().where(
        Failure.run_id == run_id, Failure.stage == Stage.SCORE.value, Failure.fatal
    )
    # Without a failure there is nothing to look for among millions of pairs.
    if connection.execute(select(failed)).scalar_one():
        connection.execute(_EXCUSE_SCORED_PAIRS, {"run": run_id})


def share_failures(
    connection: Connection, run_id: int, *, query_parts: str, item_parts: str
) -> None:
    """Record the pairs left without a score, with the reason of an equal pair."""
    connection.execute(_SHARE_FAILURES[query_parts, item_parts], {"run": run_id})


def pair_key_sql(query_parts: str, item_parts: str, *, lists: bool) -> str:
    """SQL of a pair's key under the scorer `:fingerprint`: that of `schema.identity.pair_key`.

    A list is of distinct contents: of equal ones the first in coarse order stands for all.

    Args:
        query_parts: What the scorer sees of `q`, a query.
        item_parts: What it sees of an item, by its `content`.
        lists: Whether it sees them as a list of the candidates, `c`, of the query.
    """
    item = f"content.{HASH_COLUMN[item_parts]}"
    of_list = (
        f" || list_digest(array_agg({item}) OVER (PARTITION BY c.query_id "
        "ORDER BY c.coarse_rank ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING))"
    )
    return (
        f"sha256(convert_to(:fingerprint, 'UTF8') || q.{HASH_COLUMN[query_parts]} || {item}"
        f"{of_list if lists else ''})"
    )


def known_score_sql(pair_key: str) -> str:
    """SQL of a lateral subquery: the id of the oldest score of a key under `:scorer`.

    Args:
        pair_key: SQL of the key.
    """
    # `+ 0` keeps Postgres from walking through the ids in their order.
    return (
        f"(SELECT s.id FROM score s WHERE s.scorer = :scorer AND s.pair_key = {pair_key} "
        "ORDER BY s.id + 0 LIMIT 1)"
    )


# SQL: all candidates, with query and content, of the queries of which some have no score.
_CANDIDATES = """
    FROM candidate c JOIN query q ON q.id = c.query_id JOIN content ON content.id = c.content_id
    WHERE c.run_id = :run AND c.query_id IN (
        SELECT query_id FROM candidate WHERE run_id = :run AND score_id IS NULL
            AND query_id BETWEEN :first_query AND :last_query)
"""

# By parts, and whether candidates are scored as lists: looks up the scores of pairs without one.
# The key of a list covers all its members, the scored ones too.
_LINK_SCORES = {
    (query_parts, item_parts, lists): text(f"""
        WITH wanted AS MATERIALIZED (
            SELECT c.query_id, c.item_id,
                {pair_key_sql(query_parts, item_parts, lists=lists)} AS pair_key
            {_CANDIDATES if lists else UNSCORED + IN_QUERIES}
        )
        UPDATE candidate c SET score_id = known.id
        FROM wanted w CROSS JOIN LATERAL {known_score_sql("w.pair_key")} AS known
        WHERE c.run_id = :run AND c.query_id = w.query_id AND c.item_id = w.item_id
            AND c.score_id IS NULL
    """)
    for query_parts, item_parts, lists in product(HASH_COLUMN, HASH_COLUMN, (False, True))
}

# Turns failures of pairs that have a score by now into notices.
_EXCUSE_SCORED_PAIRS = text("""
    UPDATE failure f SET fatal = false
    FROM candidate c JOIN query q ON q.id = c.query_id JOIN item i ON i.id = c.item_id
    WHERE c.run_id = :run AND c.score_id IS NOT NULL AND f.run_id = :run AND f.stage = 'score'
        AND f.fatal AND f.subject_kind = 'pair'
        AND f.subject_id = q.external_id || ' → ' || i.external_id
""")

# By parts: records a failure for every unscored pair, with the reason of the first equal pair.
_SHARE_FAILURES = {
    (query_parts, item_parts): text(f"""
        WITH unscored AS MATERIALIZED (
            SELECT q.{query} AS query, content.{item} AS item,
                q.external_id || ' → ' || i.external_id AS subject
            {UNSCORED}
        ), failed AS (
            SELECT DISTINCT ON (u.query, u.item) u.query, u.item, f.reason, f.message
            FROM unscored u JOIN failure f ON f.run_id = :run AND f.stage = 'score'
                AND f.subject_kind = 'pair' AND f.fatal AND f.subject_id = u.subject
            ORDER BY u.query, u.item, u.subject COLLATE "C"
        )
        INSERT INTO failure (run_id, stage, subject_kind, subject_id, reason, message)
        SELECT :run, 'score', 'pair', u.subject, coalesce(f.reason, 'not_scored'),
            coalesce(f.message, 'no pair of this content was scored: plan the run again')
        FROM unscored u LEFT JOIN failed f ON f.query = u.query AND f.item = u.item
        ON CONFLICT DO NOTHING
    """)
    for (query_parts, query), (item_parts, item) in product(HASH_COLUMN.items(), repeat=2)
}
