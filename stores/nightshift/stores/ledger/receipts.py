"""What a run should have done against what it did, counted by Postgres."""

import hashlib
import json
from dataclasses import dataclass

from sqlalchemy import Connection, text

from nightshift.schema.states import RunKind, RunState
from nightshift.stores.catalog.contents import BELONGS_IN_INDEX
from nightshift.stores.ledger.run_types import AnyRun

__all__ = ["Gap", "Tally", "gaps", "mean_margin", "result_digest", "tally"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """One unit of account of a run: every unit is in exactly one of the four."""

    #: `items`, `queries` or `pairs`.
    unit: str
    expected: int
    #: Have their result.
    done: int
    #: Have a failure with its reason instead.
    failed: int
    #: Were still to do when the run was cancelled.
    skipped: int

    @property
    def missing(self) -> int:
        """Are in none of these; anything but 0 breaks the promise."""
        return self.expected - self.done - self.failed - self.skipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A unit with neither a result nor a failure."""

    unit: str
    subject_id: str


def tally(connection: Connection, run: AnyRun) -> list[Tally]:
    """The accounts of a run: items that it embeds or sees, or queries and pairs that it ranks."""
    rows = []
    for unit in _UNITS_OF[run.kind]:
        counts = connection.execute(
            text(
                f"""
                SELECT count(*) AS expected, count(*) FILTER (WHERE has_result) AS done,
                    count(*) FILTER (WHERE NOT has_result AND has_failure) AS failed
                FROM ({_UNITS[unit]}) AS unit
                """
            ),
            {"run": run.id},
        ).one()
        left = counts.expected - counts.done - counts.failed
        rows.append(
            Tally(
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
    rows = connection.execute(
        text(
            f"SELECT subject_id FROM ({_UNITS[unit]}) AS unit "
            "WHERE NOT has_result AND NOT has_failure ORDER BY subject_id LIMIT :limit"
        ),
        {"run": run.id, "limit": limit},
    )
    return [Gap(unit=unit, subject_id=row.subject_id) for row in rows]


def result_digest(connection: Connection, run: AnyRun) -> str:
    """SHA-256 (hex) over what the run made, in an order that is the same everywhere.

    Of a re-ranking run, which item each query has at which place and whether it was scored; of an
    index, the items and the contents that their vectors are of; of a token run, the contents that
    are stored. Numbers that a model computed are left out: their last digits depend on what was
    computed beside them, so on how the work was cut into jobs.
    """
    digest = hashlib.sha256()
    rows = connection.execute(
        text(_RESULT_ROWS[run.kind]).execution_options(yield_per=5000),
        {"run": run.id},
    )
    for row in rows:
        digest.update(json.dumps(list(row)).encode() + b"\n")
    return digest.hexdigest()


def mean_margin(connection: Connection, run: AnyRun) -> float | None:
    """Mean log-odds of a run's ranked pairs, to compare runs by; None where there are none."""
    mean = connection.execute(
        text("SELECT avg(margin::float8) FROM ranking WHERE run_id = :run"), {"run": run.id}
    ).scalar_one()
    return None if mean is None else float(mean)


_FAILED = """EXISTS (
    SELECT FROM failure f WHERE f.run_id = :run AND f.fatal AND f.subject_kind = '{kind}'
        AND f.stage = '{stage}' AND f.subject_id = {subject})"""

_UNITS = {
    # What the run planned to embed, as its jobs name it, and what is still to be in the index.
    "items": f"""
        SELECT item.external_id AS subject_id,
            EXISTS (SELECT FROM embedding e
                    WHERE e.item_id = item.id AND e.index_id = i.id) AS has_result,
            {_FAILED.format(kind="item", stage="embed", subject="item.external_id")} AS has_failure
        FROM (SELECT DISTINCT jsonb_array_elements_text(payload -> 'ids')::bigint AS id
              FROM job WHERE run_id = :run AND stage = 'embed' AND state <> 'split') AS planned
        JOIN item ON item.id = planned.id JOIN run ON run.id = :run
        JOIN "index" i ON i.id = run.index_id AND {BELONGS_IN_INDEX}""",
    # What the run planned to see; another run may have stored the same content. Where the whole
    # set was deleted on purpose, nothing of it is lost.
    "pictures": f"""
        SELECT i.external_id AS subject_id,
            EXISTS (SELECT FROM run WHERE run.id = :run AND (run.token_set_id IS NULL
                    OR EXISTS (SELECT FROM token_record t WHERE t.content = i.image_hash
                        AND t.token_set_id = run.token_set_id))) AS has_result,
            {_FAILED.format(kind="item", stage="tokens", subject="i.external_id")} AS has_failure
        FROM (SELECT DISTINCT jsonb_array_elements_text(payload -> 'ids')::bigint AS id
              FROM job WHERE run_id = :run AND stage = 'tokens' AND state <> 'split') AS planned
        JOIN item i ON i.id = planned.id AND i.state = 'live'""",
    "queries": f"""
        SELECT q.external_id AS subject_id,
            EXISTS (SELECT FROM ranking r
                    WHERE r.run_id = :run AND r.query_id = q.id) AS has_result,
            {_FAILED.format(kind="query", stage="search", subject="q.external_id")} AS has_failure
        FROM query q JOIN run ON run.query_set_id = q.query_set_id WHERE run.id = :run""",
    # A pair is done when it is scored and ranked; one that failed is ranked below the scored.
    "pairs": f"""
        SELECT q.external_id || ' → ' || i.external_id AS subject_id,
            EXISTS (SELECT FROM pair_score p WHERE p.run_id = :run AND p.query_id = c.query_id
                    AND p.item_id = c.item_id)
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

_INDEX_ROWS = """
    SELECT i.external_id, e.key FROM embedding e JOIN item i ON i.id = e.item_id
    JOIN run ON run.index_id = e.index_id WHERE run.id = :run
    ORDER BY i.external_id COLLATE "C"
"""

_RANKING_ROWS = """
    SELECT query, final_rank, item, margin IS NOT NULL AS scored
    FROM v_ranking WHERE run_id = :run ORDER BY query COLLATE "C", final_rank
"""

_PICTURE_ROWS = """
    SELECT encode(t.content, 'hex') AS content
    FROM token_record t JOIN run ON run.token_set_id = t.token_set_id
    WHERE run.id = :run ORDER BY t.content
"""

_RESULT_ROWS = {
    RunKind.INDEX: _INDEX_ROWS,
    RunKind.TOKENS: _PICTURE_ROWS,
    RunKind.RERANK: _RANKING_ROWS,
}
