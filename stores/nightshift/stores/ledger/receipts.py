"""Receipts: the units that a run should have done, compared with those that it did."""

import hashlib
import json
from dataclasses import dataclass

from sqlalchemy import Connection, text

from nightshift.schema.states import RunKind, RunState
from nightshift.stores.catalog.contents import IN_REVISION_OF_RUN, IS_CURRENT, SEEN_BY_INDEX
from nightshift.stores.ledger.run_types import AnyRun

__all__ = [
    "Gap",
    "UnitBalance",
    "balances",
    "count_lost",
    "gaps",
    "mean_margin",
    "result_digest",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitBalance:
    """The counts of one kind of unit: each unit is done, failed, skipped or missing."""

    #: `items`, `queries` or `pairs`.
    unit: str
    expected: int
    #: Units with their result.
    done: int
    #: Units with a failure and its reason instead.
    failed: int
    #: Units that were still to do when the run was cancelled.
    skipped: int

    @property
    def missing(self) -> int:
        """Units that are none of these; more than 0 means that results were lost."""
        return self.expected - self.done - self.failed - self.skipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A unit with neither a result nor a failure."""

    unit: str
    subject_id: str


def balances(connection: Connection, run: AnyRun) -> list[UnitBalance]:
    """The balances of a run: of the items that it embeds or encodes, or its queries and pairs."""
    rows = []
    for unit in _UNITS_OF[run.kind]:
        counts = connection.execute(_COUNT_UNITS[unit], {"run": run.id}).one()
        left = counts.expected - counts.done - counts.failed
        rows.append(
            UnitBalance(
                unit=unit,
                expected=counts.expected,
                done=counts.done,
                failed=counts.failed,
                skipped=left if run.state is RunState.CANCELLED else 0,
            )
        )
    return rows


def gaps(connection: Connection, run: AnyRun, unit: str, limit: int = 20) -> list[Gap]:
    """Units with neither a result nor a failure."""
    rows = connection.execute(_FIND_GAPS[unit], {"run": run.id, "limit": limit})
    return [Gap(unit=unit, subject_id=row.subject_id) for row in rows]


def count_lost(connection: Connection, run: AnyRun) -> int:
    """Units of jobs that the ledger calls done that have neither a result nor a failure.

    Args:
        connection: A transaction.
        run: In any state, also while it runs: units of its open jobs do not count.
    """
    return int(connection.execute(_COUNT_LOST, {"run": run.id}).scalar_one())


def result_digest(connection: Connection, run: AnyRun) -> str:
    """SHA-256 (hex) over the results of a run, in an order that is the same everywhere.

    For a re-ranking run: which item each query has at which place, and whether it was scored. For
    an index run: the items and the contents of their vectors. For a token run: the contents that
    are stored. Numbers that a model computed are left out: their last digits depend on the pairs
    that were computed in the same batch, so on how the work was cut into jobs.
    """
    digest = hashlib.sha256()
    rows = connection.execute(_RESULT_ROWS[run.kind], {"run": run.id})
    for row in rows:
        digest.update(json.dumps(list(row)).encode() + b"\n")
    return digest.hexdigest()


def mean_margin(connection: Connection, run: AnyRun) -> float | None:
    """Mean log-odds of a run's ranked pairs, to compare runs by; None where there are none."""
    mean = connection.execute(_MEAN_MARGIN, {"run": run.id}).scalar_one()
    return None if mean is None else float(mean)


_FAILED = """EXISTS (
    SELECT FROM failure f WHERE f.run_id = :run AND f.fatal AND f.subject_kind = '{kind}'
        AND f.stage = '{stage}' AND f.subject_id = {subject})"""


def _joined(digest: str) -> str:
    """SQL: joins that add what a run saw of an `item`, where it or the catalogue still needs that.

    Args:
        digest: SQL of what it saw of `content`; null where that is nothing.
    """
    return f"""
        JOIN run ON run.id = :run LEFT JOIN "index" i ON i.id = run.index_id
        JOIN item_version v ON v.item_id = item.id AND {IN_REVISION_OF_RUN}
        JOIN content ON content.id = v.content_id AND {digest} IS NOT NULL
            AND (run.state IN ('running', 'paused') OR {digest} = (
                SELECT {digest} FROM item_version v JOIN content ON content.id = v.content_id
                WHERE v.item_id = item.id AND {IS_CURRENT}))"""


# One row for each unit of a run: its name, and whether it has a result or a failure.
_UNITS = {
    # Items that its jobs name, except those that changed or went after an ended run.
    "items": f"""
        SELECT item.external_id AS subject_id,
            EXISTS (SELECT FROM embedding e
                    WHERE e.item_id = item.id AND e.index_id = i.id
                        AND e.content = {SEEN_BY_INDEX}) AS has_result,
            {_FAILED.format(kind="item", stage="embed", subject="item.external_id")} AS has_failure
        FROM (SELECT DISTINCT jsonb_array_elements_text(payload -> 'ids')::bigint AS id
              FROM job WHERE run_id = :run AND stage = 'embed' AND state <> 'split') AS planned
        JOIN item ON item.id = planned.id {_joined(SEEN_BY_INDEX)}""",
    # The same; another run may have stored the same content. Where the set was deleted on
    # purpose, nothing of it is lost.
    "pictures": f"""
        SELECT item.external_id AS subject_id,
            run.token_set_id IS NULL OR EXISTS (
                SELECT FROM token_record t WHERE t.content = content.image_hash
                    AND t.token_set_id = run.token_set_id) AS has_result,
            {_FAILED.format(kind="item", stage="tokens", subject="item.external_id")} AS has_failure
        FROM (SELECT DISTINCT jsonb_array_elements_text(payload -> 'ids')::bigint AS id
              FROM job WHERE run_id = :run AND stage = 'tokens' AND state <> 'split') AS planned
        JOIN item ON item.id = planned.id {_joined("content.image_hash")}""",
    "queries": f"""
        SELECT q.external_id AS subject_id,
            EXISTS (SELECT FROM ranking r
                    WHERE r.run_id = :run AND r.query_id = q.id) AS has_result,
            {_FAILED.format(kind="query", stage="search", subject="q.external_id")} AS has_failure
        FROM query q JOIN run ON run.query_set_id = q.query_set_id WHERE run.id = :run""",
    # A pair is done when it is scored and ranked; one that failed is ranked below the scored.
    "pairs": f"""
        SELECT q.external_id || ' → ' || i.external_id AS subject_id,
            EXISTS (SELECT FROM score s WHERE s.id = c.score_id AND s.scorer = (
                    SELECT number FROM run JOIN model ON fingerprint = scorer_fingerprint
                    WHERE run.id = :run))
            AND EXISTS (SELECT FROM ranking r WHERE r.run_id = :run AND r.query_id = c.query_id
                        AND r.item_id = c.item_id AND r.margin IS NOT NULL) AS has_result,
            {
        _FAILED.format(
            kind="pair", stage="score", subject="q.external_id || ' → ' || i.external_id"
        )
    } AS has_failure
        FROM candidate c JOIN query q ON q.id = c.query_id JOIN item i ON i.id = c.item_id
        WHERE c.run_id = :run""",
}

_UNITS_OF = {
    RunKind.INDEX: ("items",),
    RunKind.TOKENS: ("pictures",),
    RunKind.RERANK: ("queries", "pairs"),
}

# Counts the units of a run that have a result or a failure.
_COUNT_UNITS = {
    unit: text(
        f"""
        SELECT count(*) AS expected, count(*) FILTER (WHERE has_result) AS done,
            count(*) FILTER (WHERE NOT has_result AND has_failure) AS failed
        FROM ({units}) AS unit
        """
    )
    for unit, units in _UNITS.items()
}

# Names the units of a run that have neither a result nor a failure.
_FIND_GAPS = {
    unit: text(
        f"""
        SELECT subject_id FROM ({units}) AS unit
        WHERE NOT has_result AND NOT has_failure ORDER BY subject_id LIMIT :limit
        """
    )
    for unit, units in _UNITS.items()
}

# Averages the log-odds of a run's ranked pairs.
_MEAN_MARGIN = text("SELECT avg(margin::float8) FROM ranking WHERE run_id = :run")

# Lists the results of a run in an order that no run changes.
_RESULT_ROWS = {
    RunKind.INDEX: text(
        f"""
        SELECT item.external_id, e.key FROM run JOIN "index" i ON i.id = run.index_id
        JOIN embedding e ON e.index_id = i.id JOIN item ON item.id = e.item_id
        JOIN item_version v ON v.item_id = item.id AND {IN_REVISION_OF_RUN}
        JOIN content ON content.id = v.content_id AND {SEEN_BY_INDEX} = e.content
        WHERE run.id = :run ORDER BY item.external_id COLLATE "C"
        """
    ).execution_options(yield_per=5000),
    RunKind.TOKENS: text(
        """
        SELECT encode(t.content, 'hex') AS content
        FROM token_record t JOIN run ON run.token_set_id = t.token_set_id
        WHERE run.id = :run ORDER BY t.content
        """
    ).execution_options(yield_per=5000),
    RunKind.RERANK: text(
        """
        SELECT query, final_rank, item, margin IS NOT NULL AS scored
        FROM v_ranking WHERE run_id = :run ORDER BY query COLLATE "C", final_rank
        """
    ).execution_options(yield_per=5000),
}

# The units of a stage's done jobs.
_BLOCK = """
    SELECT jsonb_array_elements_text(payload -> 'ids')::bigint AS id
    FROM job WHERE run_id = :run AND stage = '{stage}' AND state = 'done'"""

_NO_FAILURE = """NOT EXISTS (
    SELECT FROM failure f WHERE f.run_id = :run AND f.fatal AND f.stage = '{stage}'
        AND f.subject_id = {subject})"""

# Units of done jobs that have neither a result nor a failure, stage by stage.
_LOST = (
    f"""
    SELECT 1 FROM ({_BLOCK.format(stage="embed")}) AS unit
    JOIN item ON item.id = unit.id {_joined(SEEN_BY_INDEX)}
    WHERE NOT EXISTS (
        SELECT FROM embedding e WHERE e.index_id = i.id AND e.item_id = unit.id
            AND e.content = {SEEN_BY_INDEX})
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
    JOIN item ON item.id = unit.item_id
    JOIN candidate c ON c.run_id = :run AND c.query_id = unit.query_id
        AND c.item_id = unit.item_id
    WHERE NOT EXISTS (SELECT FROM score s WHERE s.id = c.score_id AND s.scorer = (
        SELECT number FROM run JOIN model ON fingerprint = scorer_fingerprint
        WHERE run.id = :run))
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

# Counts the units of done jobs that have neither a result nor a failure.
_COUNT_LOST = text(f"SELECT count(*) FROM ({' UNION ALL '.join(_LOST)}) AS lost")
