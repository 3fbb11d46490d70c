"""What a run has lost so far, which can be asked while it runs: done jobs without their results."""

from sqlalchemy import Connection, text

from nightshift.stores.catalog.contents import BELONGS_IN_INDEX
from nightshift.stores.ledger.run_types import AnyRun, IndexedRun

__all__ = ["count_lost"]


def count_lost(connection: Connection, run: AnyRun) -> int:
    """Units of jobs that the ledger calls done that have neither a result nor a failure.

    Args:
        connection: A transaction.
        run: In any state; what its open jobs owe does not count.
    """
    return int(
        connection.execute(
            text(f"SELECT count(*) FROM ({' UNION ALL '.join(_LOST)}) AS lost"),
            {"run": run.id, "index": run.index_id if isinstance(run, IndexedRun) else None},
        ).scalar_one()
    )


_BLOCK = """
    SELECT jsonb_array_elements_text(payload -> 'ids')::bigint AS id
    FROM job WHERE run_id = :run AND stage = '{stage}' AND state = 'done'"""

_NO_FAILURE = """NOT EXISTS (
    SELECT FROM failure f WHERE f.run_id = :run AND f.fatal AND f.stage = '{stage}'
        AND f.subject_id = {subject})"""

_LOST = (
    f"""
    SELECT 1 FROM ({_BLOCK.format(stage="embed")}) AS unit
    JOIN item ON item.id = unit.id JOIN "index" i ON i.id = :index AND {BELONGS_IN_INDEX}
    WHERE NOT EXISTS (
        SELECT FROM embedding e WHERE e.index_id = :index AND e.item_id = unit.id)
    AND {_NO_FAILURE.format(stage="embed", subject="item.external_id")}""",
    f"""
    SELECT 1 FROM ({_BLOCK.format(stage="search")}) AS unit JOIN query ON query.id = unit.id
    WHERE NOT EXISTS (
        SELECT FROM candidate c WHERE c.run_id = :run AND c.query_id = unit.id)
    AND {_NO_FAILURE.format(stage="search", subject="query.external_id")}""",
    f"""
    SELECT 1 FROM (
        SELECT CASE WHEN side = 'query' THEN shared ELSE other END AS query_id,
            CASE WHEN side = 'query' THEN other ELSE shared END AS item_id
        FROM (
            SELECT payload ->> 'shared_side' AS side, (pair_group -> 0)::bigint AS shared,
                jsonb_array_elements_text(pair_group -> 1)::bigint AS other
            FROM job, jsonb_array_elements(payload -> 'groups') AS pair_group
            WHERE run_id = :run AND stage = 'score' AND state = 'done') AS pair) AS unit
    JOIN query ON query.id = unit.query_id
    JOIN item ON item.id = unit.item_id AND item.state = 'live'
    WHERE NOT EXISTS (
        SELECT FROM pair_score p WHERE p.run_id = :run AND p.query_id = unit.query_id
            AND p.item_id = unit.item_id)
    AND {
        _NO_FAILURE.format(stage="score", subject="query.external_id || ' → ' || item.external_id")
    }""",
    f"""
    SELECT 1 FROM ({_BLOCK.format(stage="rank")}) AS unit
    JOIN candidate c ON c.run_id = :run AND c.query_id = unit.id
    WHERE NOT EXISTS (
        SELECT FROM ranking r WHERE r.run_id = :run AND r.query_id = c.query_id
            AND r.item_id = c.item_id)""",
)
