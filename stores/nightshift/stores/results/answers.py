"""Answers to queries of a run, with the items that they cite."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from nightshift.schema.errors import ConflictError
from nightshift.schema.states import RunState, Stage
from nightshift.stores.ledger.run_types import RerankRun
from nightshift.stores.results.rankings import require_rerank

__all__ = [
    "AnswerRow",
    "StoredAnswer",
    "best_items",
    "list_answers",
    "lock_ranked",
    "unanswered",
    "write_answers",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRow:
    """See table `answer`."""

    run_id: int
    query_id: int
    text: str
    shown: tuple[int, ...]
    cited: tuple[int, ...]
    n_tokens: int
    ended: bool
    answerer: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAnswer:
    """An answer, by external ids."""

    run_id: int
    query: str
    text: str
    #: Items that it cites, in order of mention, and all that the model was shown, best first.
    cited: tuple[str, ...]
    shown: tuple[str, ...]
    n_tokens: int
    #: False where it was cut at the longest length.
    ended: bool
    #: What made it: weights, wording, limits.
    answerer: dict[str, Any]


def lock_ranked(connection: Connection, run_id: int) -> RerankRun:
    """A run with complete rankings, locked against the dispatcher and other planners.

    Raises:
        NotFoundError: Where there is no such run.
        ConflictError: Where it ranks nothing, or not all yet.
    """
    connection.execute(text("SELECT FROM run WHERE id = :run FOR UPDATE"), {"run": run_id})
    run = require_rerank(connection, run_id)
    answering = run.state is RunState.RUNNING and run.stage is Stage.ANSWER
    if run.state is not RunState.DONE and not answering:
        raise ConflictError(
            f"run {run_id} is {run.state.value} in stage {run.stage.value}: its queries can be "
            f"answered when it is done (`nightshift run watch {run_id}`)"
        )
    return run


def unanswered(connection: Connection, run_id: int, query: str | None = None) -> list[int]:
    """Ids of ranked queries without an answer that no job is about to answer either.

    Args:
        connection: Postgres.
        run_id: The run.
        query: Only this one, by external id.
    """
    rows = connection.execute(
        text(
            """
            SELECT q.id FROM query q
            WHERE q.id IN (SELECT query_id FROM ranking WHERE run_id = :run)
                AND (CAST(:query AS text) IS NULL OR q.external_id = :query)
                AND NOT EXISTS (SELECT FROM answer a WHERE a.run_id = :run AND a.query_id = q.id)
                AND q.id NOT IN (
                    SELECT CAST(jsonb_array_elements_text(payload->'ids') AS bigint) FROM job
                    WHERE run_id = :run AND stage = 'answer' AND state IN ('queued', 'running'))
            ORDER BY q.id
            """
        ),
        {"run": run_id, "query": query},
    )
    return [int(row.id) for row in rows]


def best_items(
    connection: Connection, run_id: int, query_ids: Sequence[int], limit: int
) -> dict[int, tuple[int, ...]]:
    """Ids of the `limit` best items of each query, in final order."""
    rows = connection.execute(
        text(
            """
            SELECT query_id, array_agg(item_id ORDER BY final_rank) AS items FROM ranking
            WHERE run_id = :run AND query_id = ANY(:queries) AND final_rank <= :limit
            GROUP BY query_id
            """
        ),
        {"run": run_id, "queries": list(query_ids), "limit": limit},
    )
    return {int(row.query_id): tuple(map(int, row.items)) for row in rows}


def write_answers(
    connection: Connection, rows: Iterable[AnswerRow], load_id: int | None = None
) -> None:
    """Keep answers, inside the transaction that marks the job done; the first of each stays.

    Args:
        connection: The transaction.
        rows: The answers.
        load_id: The load of the model that wrote them.
    """
    for row in rows:
        connection.execute(
            text(
                """
                INSERT INTO answer
                    (run_id, query_id, text, shown, cited, n_tokens, ended, answerer, load_id)
                VALUES (:run, :query, :text, :shown, :cited, :n_tokens, :ended, :answerer,
                    :load)
                ON CONFLICT DO NOTHING
                """
            ),
            {
                "run": row.run_id,
                "query": row.query_id,
                "text": row.text,
                "shown": json.dumps(row.shown),
                "cited": json.dumps(row.cited),
                "n_tokens": row.n_tokens,
                "ended": row.ended,
                "answerer": json.dumps(row.answerer),
                "load": load_id,
            },
        )


def list_answers(
    connection: Connection, run_id: int, query: str | None = None
) -> list[StoredAnswer]:
    """Answers of a run in the order of its queries, or of one query."""
    rows = connection.execute(
        text(
            """
            SELECT a.run_id, q.external_id AS query, a.text,
                ARRAY(SELECT i.external_id FROM jsonb_array_elements_text(a.cited)
                    WITH ORDINALITY AS c(id, place) JOIN item i ON i.id = CAST(c.id AS bigint)
                    ORDER BY place) AS cited,
                ARRAY(SELECT i.external_id FROM jsonb_array_elements_text(a.shown)
                    WITH ORDINALITY AS s(id, place) JOIN item i ON i.id = CAST(s.id AS bigint)
                    ORDER BY place) AS shown,
                a.n_tokens, a.ended, a.answerer
            FROM answer a JOIN query q ON q.id = a.query_id
            WHERE a.run_id = :run AND (CAST(:query AS text) IS NULL OR q.external_id = :query)
            ORDER BY q.id
            """
        ),
        {"run": run_id, "query": query},
    )
    return [
        StoredAnswer(**{**row, "cited": tuple(row["cited"]), "shown": tuple(row["shown"])})
        for row in rows.mappings()
    ]
