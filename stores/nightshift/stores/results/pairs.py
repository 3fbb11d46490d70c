"""What the planner asks Postgres of a run's pairs: which want a score, by what they share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from nightshift.schema.params import kinds_from_text, kinds_to_text
from nightshift.schema.records import PartKind
from nightshift.stores.catalog.contents import HASH_COLUMN

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
    "record_unasked",
    "record_unscorable",
    "tied_pairs",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class KindPair:
    """What the scorer will see on both sides of some pairs."""

    query: frozenset[PartKind]
    item: frozenset[PartKind]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairCounts:
    """The candidates of a run, and how many of them ask for no scoring, and why."""

    pairs: int
    #: Scored by an earlier run.
    reused: int
    #: One side has nothing that the scorer may see.
    unscorable: int
    #: Neither scored nor unscorable.
    unscored: int


def count_pairs(connection: Connection, run_id: int) -> PairCounts:
    """Candidates of a run, by what is known of them."""
    row = connection.execute(
        text(
            """
            SELECT (SELECT count(*) FROM candidate WHERE run_id = :run) AS pairs,
                (SELECT count(*) FROM pair_score WHERE run_id = :run) AS scored,
                (SELECT count(*) FROM pair_score
                 WHERE run_id = :run AND reused_from IS NOT NULL) AS reused,
                (SELECT count(*) FROM failure WHERE run_id = :run AND stage = 'score'
                 AND reason IN ('nothing_to_score', 'no_prompt')) AS unscorable
            """
        ),
        {"run": run_id},
    ).one()
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
    rows = connection.execute(
        text(
            f"""
            SELECT DISTINCT {_kinds("q", query_parts)} AS query_kinds,
                {_kinds("i", item_parts)} AS item_kinds
            {UNSCORED}
            """
        ),
        {"run": run_id},
    )
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

    Of pairs whose contents are equal one is asked about, and `equal_pairs` gives the others its
    score; so it is with candidates in a list.

    Yields:
        (id on the shared side, ids on the other side), both in the order of their external ids,
        which is that of no import; the other side of lists in coarse order.
    """
    query, item = f"q.{HASH_COLUMN[query_parts]}", f"i.{HASH_COLUMN[item_parts]}"
    shared, other = ("query", "item") if shared_side == "query" else ("item", "query")
    equal = "c.query_id, item" if lists else "query, item"
    place = "c.coarse_rank" if lists else 'c.query_name COLLATE "C", c.item_name COLLATE "C"'
    grouped = (
        _LISTS
        if lists
        else f"""
            SELECT {shared}_id AS shared,
                array_agg({other}_id ORDER BY {other}_name COLLATE "C") AS others
            FROM once GROUP BY {shared}_id, {shared}_name ORDER BY {shared}_name COLLATE "C"
        """
    )
    wanted = [f"{kinds_to_text(pair.query)}/{kinds_to_text(pair.item)}" for pair in combinations]
    rows = connection.execute(
        text(
            f"""
            WITH unscored AS (
                SELECT c.query_id, c.item_id, c.coarse_rank, {query} AS query, {item} AS item,
                    q.external_id AS query_name, i.external_id AS item_name
                {UNSCORED}
                    AND {_kinds("q", query_parts)} || '/' || {_kinds("i", item_parts)}
                        = ANY(:wanted)
                    AND {WITHOUT_FAILURE}
            ), once AS (
                SELECT DISTINCT ON ({equal}) c.* FROM unscored c ORDER BY {equal}, {place}
            )
            {grouped}
            """
        ).execution_options(yield_per=1000),
        {"run": run_id, "wanted": wanted},
    )
    for row in rows:
        yield int(row.shared), [int(value) for value in row.others]


def tied_pairs(
    connection: Connection, run_id: int, *, quantum: float, fusion: float, guard: bool
) -> Iterator[tuple[int, list[int]]]:
    """Pairs whose tie entropy would decide, and whose entropy is not known; of equal ones, one.

    The rule is that of `scoring.tie_break`: equal steps of the score, above one half.

    Yields:
        (query id, item ids), sorted.
    """
    rows = connection.execute(
        text(
            """
            WITH scored AS (
                SELECT p.query_id, p.item_id, p.pair_key, p.entropy, floor((:fusion * c.coarse_score
                    + (1 - :fusion) / (1 + exp(-p.margin::double precision))) / :quantum + 1e-5)
                    AS level
                FROM pair_score p JOIN candidate c ON c.run_id = p.run_id
                    AND c.query_id = p.query_id AND c.item_id = p.item_id
                WHERE p.run_id = :run
            ), tied AS (
                SELECT *, count(*) OVER (PARTITION BY query_id, level) AS size FROM scored
            )
            SELECT query_id, array_agg(item_id ORDER BY item_id) AS items
            FROM (
                SELECT DISTINCT ON (pair_key) query_id, item_id FROM tied
                WHERE size > 1 AND entropy IS NULL
                    AND (NOT :guard OR level * :quantum > 0.5 + 1e-5)
                ORDER BY pair_key, query_id, item_id
            ) AS once
            GROUP BY query_id ORDER BY query_id
            """
        ),
        {"run": run_id, "quantum": quantum, "fusion": fusion, "guard": guard},
    )
    for row in rows:
        yield int(row.query_id), [int(item) for item in row.items]


def record_unasked(
    connection: Connection,
    run_id: int,
    *,
    query_parts: str,
    item_parts: str,
    combinations: Sequence[KindPair],
    message: str,
) -> None:
    """Record unscored pairs of kinds that the run's framing has no prompt for."""
    unasked = [f"{kinds_to_text(pair.query)}/{kinds_to_text(pair.item)}" for pair in combinations]
    connection.execute(
        text(
            f"""
            INSERT INTO failure (run_id, stage, subject_kind, subject_id, reason, message)
            SELECT :run, 'score', 'pair', q.external_id || ' → ' || i.external_id, 'no_prompt',
                :message
            {UNSCORED}
                AND {_kinds("q", query_parts)} || '/' || {_kinds("i", item_parts)} = ANY(:unasked)
            ON CONFLICT DO NOTHING
            """
        ),
        {"run": run_id, "message": message, "unasked": unasked},
    )


def record_unscorable(
    connection: Connection, run_id: int, *, query_parts: str, item_parts: str
) -> None:
    """Record pairs of which one side has nothing that the scorer may see."""
    connection.execute(
        text(
            f"""
            INSERT INTO failure (run_id, stage, subject_kind, subject_id, reason, message)
            SELECT :run, 'score', 'pair', q.external_id || ' → ' || i.external_id,
                'nothing_to_score',
                'the run shows the scorer ' || :query_parts || ' of queries and ' || :item_parts ||
                ' of items, and one side has none of it: widen --query-parts or --item-parts'
            {UNSCORED}
                AND ({_kinds("q", query_parts)} = '' OR {_kinds("i", item_parts)} = '')
            ON CONFLICT DO NOTHING
            """
        ),
        {"run": run_id, "query_parts": query_parts, "item_parts": item_parts},
    )


#: Candidates of a run that have no score, with their query and item.
UNSCORED = """
    FROM candidate c JOIN query q ON q.id = c.query_id JOIN item i ON i.id = c.item_id
    WHERE c.run_id = :run AND NOT EXISTS (
        SELECT FROM pair_score p WHERE p.run_id = c.run_id AND p.query_id = c.query_id
            AND p.item_id = c.item_id)
"""


# Equal queries with equal lists are asked about once too.
_LISTS = """
    SELECT shared, others FROM (
        SELECT DISTINCT ON (query, contents) shared, others, query_name FROM (
            SELECT query_id AS shared, query, query_name,
                array_agg(item_id ORDER BY coarse_rank) AS others,
                array_agg(item ORDER BY coarse_rank) AS contents
            FROM once GROUP BY query_id, query, query_name
        ) AS list ORDER BY query, contents, query_name COLLATE "C"
    ) AS distinct_list ORDER BY query_name COLLATE "C"
"""

#: Beside `UNSCORED`: pairs that nothing went wrong with so far.
WITHOUT_FAILURE = """NOT EXISTS (
    SELECT FROM failure f WHERE f.run_id = :run AND f.stage = 'score' AND f.subject_kind = 'pair'
        AND f.fatal AND f.subject_id = q.external_id || ' → ' || i.external_id)"""


def _kinds(alias: str, parts: str) -> str:
    present = [
        f"CASE WHEN {alias}.{kind}_hash IS NOT NULL THEN '{kind}' END" for kind in parts.split(",")
    ]
    return f"concat_ws(',', {', '.join(present)})"


def queries_to_search(connection: Connection, run_id: int, query_set_id: int) -> list[int]:
    """Queries of a set that have no candidates in a run; in id order, equal ones together."""
    rows = connection.execute(
        text(
            """
            SELECT id FROM query WHERE query_set_id = :queries AND NOT EXISTS (
                SELECT FROM candidate c WHERE c.run_id = :run AND c.query_id = query.id)
            ORDER BY min(id) OVER (PARTITION BY content_hash), id
            """
        ),
        {"run": run_id, "queries": query_set_id},
    )
    return [int(row.id) for row in rows]


def ranked_query_ids(connection: Connection, run_id: int) -> list[int]:
    """Queries of a run that have candidates, in id order."""
    rows = connection.execute(
        text("SELECT DISTINCT query_id FROM candidate WHERE run_id = :run ORDER BY query_id"),
        {"run": run_id},
    )
    return [int(row.query_id) for row in rows]
