"""Estimate how many scores a planned run would reuse."""

from dataclasses import dataclass
from itertools import product

from sqlalchemy import Connection, text

from nightshift.stores.catalog.contents import HASH_COLUMN, IN_REVISION, SEEN_BY_INDEX
from nightshift.stores.results.equal_pairs import pair_key_sql

__all__ = ["ReuseEstimate", "estimate_reuse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReuseEstimate:
    """Pairs with a score from earlier runs."""

    pairs: int
    #: False if the index was not searched for these queries, or has changed since: its candidates
    #: are not known before the search.
    exact: bool


def estimate_reuse(
    connection: Connection,
    *,
    query_set_id: int,
    index_id: int,
    scorer_fingerprint: str,
    query_parts: str,
    item_parts: str,
    top_k: int,
    lists: bool,
    revision: int,
) -> ReuseEstimate:
    """Pairs that have a score already, if the search finds what it found.

    Each query's candidates are those of the last run over the index that searched for the same
    content as deep as this one; the pairs are those of the items as the revision has them.

    Args:
        connection: Postgres.
        query_set_id: The queries.
        index_id: The index that will be searched.
        scorer_fingerprint: Of the scorer.
        query_parts: What models see of queries.
        item_parts: What the scorer sees of items.
        top_k: Candidates a query.
        lists: Whether the scorer sees a query's candidates as a list.
        revision: Of the catalogue, which the run will read.
    """
    row = connection.execute(
        _ESTIMATE_REUSE[query_parts, item_parts, lists],
        {
            "queries": query_set_id,
            "index": index_id,
            "fingerprint": scorer_fingerprint,
            "query_parts": query_parts,
            "top_k": top_k,
            "revision": revision,
        },
    ).one()
    return ReuseEstimate(pairs=row.pairs, exact=row.exact)


# SQL: the number of the scorer; empty before its first run.
_SCORER = "(SELECT number FROM model WHERE fingerprint = :fingerprint)"

# By parts, and whether candidates are scored as lists: takes the candidates that the last equally
# deep search found for each query, and counts those whose key an earlier run scored.
_ESTIMATE_REUSE = {
    (query_parts, item_parts, lists): text(f"""
        WITH searched AS MATERIALIZED (
            SELECT DISTINCT ON (q.id) q.id AS query_id, earlier.id AS earlier_id,
                run.id AS run_id
            FROM query q JOIN query earlier ON earlier.{HASH_COLUMN[query_parts]}
                    = q.{HASH_COLUMN[query_parts]}
            JOIN run ON run.query_set_id = earlier.query_set_id AND run.kind = 'rerank'
                AND run.index_id = :index AND run.params ->> 'query_parts' = :query_parts
            WHERE q.query_set_id = :queries AND EXISTS (SELECT FROM candidate
                WHERE candidate.run_id = run.id AND candidate.query_id = earlier.id)
            ORDER BY q.id, least((run.params ->> 'top_k')::int, :top_k) DESC, run.id DESC
        ), c AS MATERIALIZED (
            SELECT searched.query_id, v.content_id, candidate.coarse_rank,
                e.key IS NOT NULL AS indexed
            FROM searched JOIN candidate ON candidate.run_id = searched.run_id
                AND candidate.query_id = searched.earlier_id
                AND candidate.coarse_rank <= :top_k
            JOIN "index" i ON i.id = :index
            LEFT JOIN item_version v ON v.item_id = candidate.item_id AND {IN_REVISION}
            LEFT JOIN content ON content.id = v.content_id
            LEFT JOIN embedding e ON e.index_id = :index AND e.item_id = candidate.item_id
                AND e.content = {SEEN_BY_INDEX}
        ), wanted AS (
            SELECT {pair_key_sql(query_parts, item_parts, lists=lists)} AS pair_key
            FROM c JOIN query q ON q.id = c.query_id JOIN content ON content.id = c.content_id
            WHERE c.indexed
        )
        SELECT (SELECT count(*) FROM wanted WHERE EXISTS (SELECT FROM score s
                    WHERE s.scorer = {_SCORER} AND s.pair_key = wanted.pair_key)) AS pairs,
            NOT EXISTS (SELECT FROM score WHERE scorer = {_SCORER})
            OR NOT EXISTS (SELECT FROM c WHERE NOT indexed)
            AND NOT EXISTS (SELECT FROM embedding WHERE index_id = :index
                AND run_id > (SELECT min(run_id) FROM searched))
            AND NOT EXISTS (SELECT FROM query WHERE query_set_id = :queries
                AND id NOT IN (SELECT query_id FROM searched)) AS exact
    """)
    for query_parts, item_parts, lists in product(HASH_COLUMN, HASH_COLUMN, (False, True))
}
