"""Pairs of a run for its planner: which lack a score, grouped by what they share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from sqlalchemy import Connection, select, text

from nightshift.schema.params import kinds_from_text, kinds_to_text
from nightshift.schema.records import PartKind
from nightshift.schema.result_tables import Candidate
from nightshift.stores.catalog.contents import HASH_COLUMN
from nightshift.stores.ledger.run_types import RerankRun
from nightshift.stores.results.slices import IN_QUERIES, query_range

__all__ = [
    "UNSCORED",
    "WITHOUT_FAILURE",
    "KindPair",
    "PairCounts",
    "count_pairs",
    "groups",
    "kind_pairs",
    "queries_to_search",
    "ranked_query_ids",
    "record_unscorable",
    "record_without_prompt",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class KindPair:
    """The kinds of parts that the scorer will see on both sides of some pairs."""

    query: frozenset[PartKind]
    item: frozenset[PartKind]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairCounts:
    """Counts of the candidates of a run by whether they need a score."""

    pairs: int
    #: Scored by an earlier run.
    reused: int
    #: One side has nothing that the scorer may see.
    unscorable: int
    #: Neither scored nor unscorable.
    unscored: int


def count_pairs(connection: Connection, run: RerankRun) -> PairCounts:
    """Count the candidates of a run by whether they have a score."""
    row = connection.execute(_COUNT_PAIRS, {"run": run.id, "scorer": run.scorer_number}).one()
    return PairCounts(
        pairs=row.pairs,
        reused=row.reused,
        unscorable=row.unscorable,
        unscored=row.pairs - row.scored - row.unscorable,
    )


def kind_pairs(
    connection: Connection, run_id: int, *, query_parts: str, item_parts: str
) -> list[KindPair]:
    """The combinations of kinds that occur among the unscored pairs of a run."""
    rows = connection.execute(_KIND_PAIRS[query_parts, item_parts], {"run": run_id})
    return [
        KindPair(query=kinds_from_text(row.query_kinds), item=kinds_from_text(row.item_kinds))
        for row in rows
        if row.query_kinds and row.item_kinds
    ]


def groups(
    connection: Connection,
    run_id: int,
    *,
    query_parts: str,
    item_parts: str,
    combinations: Sequence[KindPair],
    shared_side: str,
    lists: bool = False,
) -> Iterator[tuple[int, list[int]]]:
    """Unscored pairs of the given kinds without a failure, grouped by the shared side.

    Of pairs with equal contents only one is scored, and `equal_pairs` gives the others its score;
    so it is with candidates in a list.

    Yields:
        (id on the shared side, ids on the other side), both in the order of their external ids,
        which no import changes; the other side of lists in coarse order.
    """
    rows = connection.execute(
        _GROUPS[query_parts, item_parts, shared_side, lists],
        {"run": run_id, "kinds": _names(combinations)},
    )
    for row in rows:
        yield int(row.shared), [int(other_id) for other_id in row.others]


def record_without_prompt(
    connection: Connection,
    run_id: int,
    *,
    query_parts: str,
    item_parts: str,
    combinations: Sequence[KindPair],
    message: str,
) -> None:
    """Record unscored pairs of kinds that the run's framing has no prompt for."""
    connection.execute(
        _RECORD_WITHOUT_PROMPT[query_parts, item_parts],
        {"run": run_id, "message": message, "kinds": _names(combinations)},
    )


def record_unscorable(
    connection: Connection,
    run_id: int,
    *,
    query_parts: str,
    item_parts: str,
    queries: tuple[int, int],
) -> None:
    """Record pairs of which one side has nothing that the scorer may see.

    Args:
        connection: A transaction.
        run_id: The run.
        query_parts: What the scorer sees of queries.
        item_parts: What it sees of items.
        queries: Only pairs of queries from the first of these ids to the last.
    """
    connection.execute(
        _RECORD_UNSCORABLE[query_parts, item_parts],
        {
            "run": run_id,
            "query_parts": query_parts,
            "item_parts": item_parts,
            **query_range(queries),
        },
    )


def queries_to_search(connection: Connection, run_id: int, query_set_id: int) -> list[int]:
    """Queries of a set that have no candidates in a run; in id order, equal ones together."""
    rows = connection.execute(_QUERIES_TO_SEARCH, {"run": run_id, "queries": query_set_id})
    return [int(row.id) for row in rows]


def ranked_query_ids(connection: Connection, run_id: int) -> list[int]:
    """Queries of a run that have candidates, in id order."""
    return list(
        connection.scalars(
            select(Candidate.query_id)
            .where(Candidate.run_id == run_id)
            .distinct()
            .order_by(Candidate.query_id)
        )
    )


#: SQL: the candidates of a run that have no score, with their query, item and content.
UNSCORED = """
    FROM candidate c JOIN query q ON q.id = c.query_id JOIN item i ON i.id = c.item_id
    JOIN content ON content.id = c.content_id
    WHERE c.run_id = :run AND c.score_id IS NULL
"""

#: SQL condition beside `UNSCORED`: no failure is recorded for the pair.
WITHOUT_FAILURE = """NOT EXISTS (
    SELECT FROM failure f WHERE f.run_id = :run AND f.stage = 'score' AND f.subject_kind = 'pair'
        AND f.fatal AND f.subject_id = q.external_id || ' → ' || i.external_id)"""


def _names(combinations: Sequence[KindPair]) -> list[str]:
    """Combinations of kinds as `_kinds_of_pair` names them."""
    return [f"{kinds_to_text(pair.query)}/{kinds_to_text(pair.item)}" for pair in combinations]


def _kinds(alias: str, parts: str) -> str:
    """SQL: the kinds of parts that a record has among those that the scorer may see."""
    present = [
        f"CASE WHEN {alias}.{kind}_hash IS NOT NULL THEN '{kind}' END" for kind in parts.split(",")
    ]
    return f"concat_ws(',', {', '.join(present)})"


def _kinds_of_pair(query_parts: str, item_parts: str) -> str:
    """SQL: the kinds on both sides of a pair, as one text."""
    return f"{_kinds('q', query_parts)} || '/' || {_kinds('content', item_parts)}"


def _group_pairs(query_parts: str, item_parts: str, shared_side: str, lists: bool) -> str:
    """SQL that groups unscored pairs by their shared side, each content once."""
    shared, other = ("query", "item") if shared_side == "query" else ("item", "query")
    equal = "c.query_id, item" if lists else "query, item"
    place = "c.coarse_rank" if lists else 'c.query_name COLLATE "C", c.item_name COLLATE "C"'
    by_shared_side = f"""
        SELECT {shared}_id AS shared,
            array_agg({other}_id ORDER BY {other}_name COLLATE "C") AS others
        FROM distinct_pair GROUP BY {shared}_id, {shared}_name
        ORDER BY {shared}_name COLLATE "C"
    """
    return f"""
        WITH unscored AS (
            SELECT c.query_id, c.item_id, c.coarse_rank, q.{HASH_COLUMN[query_parts]} AS query,
                content.{HASH_COLUMN[item_parts]} AS item, q.external_id AS query_name,
                i.external_id AS item_name
            {UNSCORED} AND {_kinds_of_pair(query_parts, item_parts)} = ANY(:kinds)
                AND {WITHOUT_FAILURE}
        ), distinct_pair AS (
            SELECT DISTINCT ON ({equal}) c.* FROM unscored c ORDER BY {equal}, {place}
        )
        {_DISTINCT_LISTS if lists else by_shared_side}
    """


# Counts candidates, scores, reused scores, and pairs that cannot be scored. The scores are read
# only in a run that was taken up again: before, all of them are another run's.
_COUNT_PAIRS = text("""
    SELECT pairs, scored, unscorable, CASE
        WHEN EXISTS (SELECT FROM job WHERE run_id = :run AND stage = 'score')
        THEN (SELECT count(*) FROM candidate c
            JOIN score s ON s.scorer = :scorer AND s.id = c.score_id
            WHERE c.run_id = :run AND s.run_id <> :run)
        ELSE scored END AS reused
    FROM (SELECT count(*) AS pairs, count(score_id) AS scored
        FROM candidate WHERE run_id = :run) AS counted, (
        SELECT count(*) AS unscorable FROM failure WHERE run_id = :run AND stage = 'score'
            AND reason IN ('nothing_to_score', 'no_prompt')) AS failed
""")

# By parts of queries and items: lists the combinations of kinds among unscored pairs.
_KIND_PAIRS = {
    (query_parts, item_parts): text(f"""
        SELECT DISTINCT {_kinds("q", query_parts)} AS query_kinds,
            {_kinds("content", item_parts)} AS item_kinds
        {UNSCORED}
    """)
    for query_parts, item_parts in product(HASH_COLUMN, HASH_COLUMN)
}

# SQL: the lists of candidates of all queries; of equal queries with equal lists only one.
_DISTINCT_LISTS = """
    SELECT shared, others FROM (
        SELECT DISTINCT ON (query, contents) shared, others, query_name FROM (
            SELECT query_id AS shared, query, query_name,
                array_agg(item_id ORDER BY coarse_rank) AS others,
                array_agg(item ORDER BY coarse_rank) AS contents
            FROM distinct_pair GROUP BY query_id, query, query_name
        ) AS list ORDER BY query, contents, query_name COLLATE "C"
    ) AS distinct_list ORDER BY query_name COLLATE "C"
"""

# By parts of queries and items, shared side, and whether they are scored as lists.
_GROUPS = {
    variant: text(_group_pairs(*variant)).execution_options(yield_per=1000)
    for variant in product(HASH_COLUMN, HASH_COLUMN, ("query", "candidate"), (False, True))
}

# By parts: records the unscored pairs whose kinds have no prompt.
_RECORD_WITHOUT_PROMPT = {
    (query_parts, item_parts): text(f"""
        INSERT INTO failure (run_id, stage, subject_kind, subject_id, reason, message)
        SELECT :run, 'score', 'pair', q.external_id || ' → ' || i.external_id, 'no_prompt',
            :message
        {UNSCORED} AND {_kinds_of_pair(query_parts, item_parts)} = ANY(:kinds)
        ON CONFLICT DO NOTHING
    """)
    for query_parts, item_parts in product(HASH_COLUMN, HASH_COLUMN)
}

# By parts: records the pairs of which one side has none of the parts that the scorer may see.
_RECORD_UNSCORABLE = {
    (query_parts, item_parts): text(f"""
        INSERT INTO failure (run_id, stage, subject_kind, subject_id, reason, message)
        SELECT :run, 'score', 'pair', q.external_id || ' → ' || i.external_id,
            'nothing_to_score',
            'the run shows the scorer ' || :query_parts || ' of queries and ' || :item_parts ||
            ' of items, and one side has none of it: widen --query-parts or --item-parts'
        {UNSCORED} {IN_QUERIES}
            AND ({_kinds("q", query_parts)} = '' OR {_kinds("content", item_parts)} = '')
        ON CONFLICT DO NOTHING
    """)
    for query_parts, item_parts in product(HASH_COLUMN, HASH_COLUMN)
}

# Lists the queries without candidates; queries of equal content follow the first of them.
_QUERIES_TO_SEARCH = text("""
    SELECT id FROM query WHERE query_set_id = :queries AND NOT EXISTS (
        SELECT FROM candidate c WHERE c.run_id = :run AND c.query_id = query.id)
    ORDER BY min(id) OVER (PARTITION BY content_hash), id
""")
