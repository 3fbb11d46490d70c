"""Pairs of equal contents share one score: an earlier run's, or the one computed in this run."""

from itertools import product

from sqlalchemy import Connection, select, text

from nightshift.schema.ledger_tables import Run
from nightshift.schema.load_tables import ModelLoad
from nightshift.stores.catalog.contents import HASH_COLUMN
from nightshift.stores.ledger.run_types import RerankRun
from nightshift.stores.results.pairs import UNSCORED

__all__ = [
    "pair_key_sql",
    "reuse_scores",
    "runs_of_scorer",
    "share_entropies",
    "share_failures",
    "share_scores",
]

#: Earlier runs that are searched for scores; a run copies what it reuses, so the last is often
#: enough.
_LOOK_BACK_RUNS = 30


def reuse_scores(
    connection: Connection,
    run: RerankRun,
    *,
    query_parts: str,
    item_parts: str,
    lists: bool = False,
) -> None:
    """Copy scores of equal pairs under the same scorer from its latest earlier runs.

    Args:
        connection: The stage's transaction.
        run: The run that needs scores.
        query_parts: What the scorer sees of queries.
        item_parts: What it sees of items.
        lists: Whether it sees a query's candidates as a list: equal pairs are of equal lists.
    """
    earlier = runs_of_scorer(connection, run.scorer_fingerprint, except_run=run.id)
    if not earlier:
        return
    # No load can be dropped while its scores are copied.
    connection.execute(
        select(ModelLoad.id).where(ModelLoad.dropped_at.is_(None)).with_for_update(read=True)
    )
    _copy_scores(connection, run, earlier, query_parts, item_parts, lists=lists)


def share_scores(
    connection: Connection,
    run: RerankRun,
    *,
    query_parts: str,
    item_parts: str,
    lists: bool = False,
) -> None:
    """Copy the score of a pair to the equal pairs of its run.

    Args:
        connection: The transaction that plans what comes next.
        run: The run.
        query_parts: As for `reuse_scores`.
        item_parts: The same.
        lists: The same.
    """
    _copy_scores(connection, run, [run.id], query_parts, item_parts, lists=lists)
    # An image may be gone from one address and be read from another: the pair has its score.
    connection.execute(_EXCUSE_SCORED_PAIRS, {"run": run.id})


def share_entropies(connection: Connection, run_id: int) -> None:
    """Copy what the second prompt yielded for a tied pair to the equal pairs of its run."""
    connection.execute(_SHARE_ENTROPIES, {"run": run_id})


def share_failures(
    connection: Connection, run_id: int, *, query_parts: str, item_parts: str
) -> None:
    """Record the pairs left without a score, with the reason of an equal pair."""
    connection.execute(_SHARE_FAILURES[query_parts, item_parts], {"run": run_id})


def runs_of_scorer(
    connection: Connection, fingerprint: str | None, *, except_run: int | None = None
) -> list[int]:
    """The latest runs of a scorer, which are searched for scores of equal pairs."""
    runs = (
        select(Run.id)
        .where(Run.scorer_fingerprint == fingerprint)
        .order_by(Run.id.desc())
        .limit(_LOOK_BACK_RUNS)
    )
    if except_run is not None:
        runs = runs.where(Run.id != except_run)
    return list(connection.scalars(runs))


def pair_key_sql(query_parts: str, item_parts: str, *, lists: bool) -> str:
    """SQL of a pair's key under the scorer `:fingerprint`: that of `schema.identity.pair_key`.

    A list is of distinct contents: of equal ones the first in coarse order stands for all.

    Args:
        query_parts: What the scorer sees of `q`, a query.
        item_parts: What it sees of `i`, an item.
        lists: Whether it sees them as a list of the candidates, `c`, of the query.
    """
    item = f"i.{HASH_COLUMN[item_parts]}"
    of_list = (
        f" || list_digest(array_agg({item}) OVER (PARTITION BY c.query_id "
        "ORDER BY c.coarse_rank ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING))"
    )
    return (
        f"sha256(convert_to(:fingerprint, 'UTF8') || q.{HASH_COLUMN[query_parts]} || {item}"
        f"{of_list if lists else ''})"
    )


def _copy_scores(
    connection: Connection,
    run: RerankRun,
    sources: list[int],
    query_parts: str,
    item_parts: str,
    *,
    lists: bool,
) -> None:
    """Copy scores of these runs to equal pairs of a run that have none."""
    connection.execute(
        _COPY_SCORES[query_parts, item_parts, lists],
        {"run": run.id, "fingerprint": run.scorer_fingerprint, "sources": sources},
    )


# SQL: all candidates of a run with their query and item.
_CANDIDATES = """
    FROM candidate c JOIN query q ON q.id = c.query_id JOIN item i ON i.id = c.item_id
    WHERE c.run_id = :run
"""

# By parts, and whether candidates are scored as lists: copies scores of equal pairs, the latest
# run's first. The key of a list covers all its members, the scored ones too.
_COPY_SCORES = {
    (query_parts, item_parts, lists): text(f"""
        WITH wanted AS MATERIALIZED (
            SELECT c.query_id, c.item_id,
                {pair_key_sql(query_parts, item_parts, lists=lists)} AS pair_key
            {_CANDIDATES if lists else UNSCORED}
        )
        INSERT INTO pair_score (run_id, query_id, item_id, pair_key, margin, logit_positive,
            logit_negative, logsumexp, entropy, fired, fired_layer, uncertainty, plain_margin,
            written, reused_from, load_id)
        SELECT DISTINCT ON (w.query_id, w.item_id) :run, w.query_id, w.item_id, w.pair_key,
            p.margin, p.logit_positive, p.logit_negative, p.logsumexp, p.entropy, p.fired,
            p.fired_layer, p.uncertainty, p.plain_margin, p.written,
            CASE WHEN p.run_id = :run THEN p.reused_from
                ELSE coalesce(p.reused_from, p.run_id) END, p.load_id
        FROM wanted w JOIN pair_score p
            ON p.pair_key = w.pair_key AND p.run_id = ANY(:sources)
        ORDER BY w.query_id, w.item_id, p.run_id DESC, p.query_id, p.item_id
        ON CONFLICT DO NOTHING
    """)
    for query_parts, item_parts, lists in product(HASH_COLUMN, HASH_COLUMN, (False, True))
}

# Turns failures of pairs that have a score by now into notices.
_EXCUSE_SCORED_PAIRS = text("""
    UPDATE failure f SET fatal = false
    FROM pair_score p JOIN query q ON q.id = p.query_id JOIN item i ON i.id = p.item_id
    WHERE p.run_id = :run AND f.run_id = :run AND f.stage = 'score' AND f.fatal
        AND f.subject_kind = 'pair'
        AND f.subject_id = q.external_id || ' → ' || i.external_id
""")

# Copies logits and entropy between pairs of one key.
_SHARE_ENTROPIES = text("""
    UPDATE pair_score p SET logit_positive = twin.logit_positive,
        logit_negative = twin.logit_negative, logsumexp = twin.logsumexp,
        entropy = twin.entropy
    FROM pair_score twin
    WHERE p.run_id = :run AND twin.run_id = :run AND twin.pair_key = p.pair_key
        AND p.entropy IS NULL AND twin.entropy IS NOT NULL
""")

# By parts: records a failure for every unscored pair, with the reason of the first equal pair.
_SHARE_FAILURES = {
    (query_parts, item_parts): text(f"""
        WITH unscored AS MATERIALIZED (
            SELECT q.{query} AS query, i.{item} AS item,
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
