"""Answers to queries of a run, with the items that they cite."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, func, select, text
from sqlalchemy.dialects.postgresql import aggregate_order_by, insert

from nightshift.schema.errors import ConflictError
from nightshift.schema.ledger_tables import Run
from nightshift.schema.result_tables import Answer, Ranking
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
    """A row of table `answer`."""

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
    #: Items that it cites, in order of mention, and all items that the model was shown, best first.
    cited: tuple[str, ...]
    shown: tuple[str, ...]
    n_tokens: int
    #: False if it was cut at the length limit.
    ended: bool
    #: Weights, prompt wording and limits of the model that wrote it.
    answerer: dict[str, Any]


def lock_ranked(connection: Connection, run_id: int) -> RerankRun:
    """A run with complete rankings, locked against the dispatcher and other planners.

    Raises:
        NotFoundError: Where there is no such run.
        ConflictError: Where it ranks nothing, or not all yet.
    """
    connection.execute(select(Run.id).where(Run.id == run_id).with_for_update())
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
        query: Only this query, by external id.
    """
    rows = connection.execute(_UNANSWERED, {"run": run_id, "query": query})
    return [int(row.id) for row in rows]


def best_items(
    connection: Connection, run_id: int, query_ids: Sequence[int], limit: int
) -> dict[int, tuple[int, ...]]:
    """Ids of the `limit` best items of each query, in final order."""
    item_ids = func.array_agg(aggregate_order_by(Ranking.item_id, Ranking.final_rank))
    rows = connection.execute(
        select(Ranking.query_id, item_ids.label("items"))
        .where(
            Ranking.run_id == run_id,
            Ranking.query_id == func.any(list(query_ids)),
            Ranking.final_rank <= limit,
        )
        .group_by(Ranking.query_id)
    )
    return {int(row.query_id): tuple(map(int, row.items)) for row in rows}


def write_answers(
    connection: Connection, rows: Iterable[AnswerRow], load_id: int | None = None
) -> None:
    """Write answers in the transaction that marks the job done; the first of each query stays.

    Args:
        connection: The transaction.
        rows: The answers.
        load_id: The load of the model that wrote them.
    """
    answers = [{**asdict(row), "load_id": load_id} for row in rows]
    if answers:
        connection.execute(insert(Answer).on_conflict_do_nothing(), answers)


def list_answers(
    connection: Connection, run_id: int, query: str | None = None
) -> list[StoredAnswer]:
    """Answers of a run in the order of its queries, or of one query."""
    rows = connection.execute(_LIST_ANSWERS, {"run": run_id, "query": query})
    return [
        StoredAnswer(**{**row, "cited": tuple(row["cited"]), "shown": tuple(row["shown"])})
        for row in rows.mappings()
    ]


# Lists the ranked queries without an answer, except those in jobs that wait or run.
_UNANSWERED = text("""
    SELECT q.id FROM query q
    WHERE q.id IN (SELECT query_id FROM ranking WHERE run_id = :run)
        AND (CAST(:query AS text) IS NULL OR q.external_id = :query)
        AND NOT EXISTS (SELECT FROM answer a WHERE a.run_id = :run AND a.query_id = q.id)
        AND q.id NOT IN (
            SELECT CAST(jsonb_array_elements_text(payload->'ids') AS bigint) FROM job
            WHERE run_id = :run AND stage = 'answer' AND state IN ('queued', 'running'))
    ORDER BY q.id
""")

# Lists the answers of a run with the external ids of the items that they cite and were shown.
_LIST_ANSWERS = text("""
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
""")
