"""What the planner asks Postgres of a run's pairs: which want a score, by what they share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from nightshift.schema.records import PartKind
from nightshift.schema.runs import kinds_from_text, kinds_to_text
from nightshift.stores.planning import HASH_COLUMN
from nightshift.stores.runs import RunRow

__all__ = [
    "KindPair",
    "PairCounts",
    "count_pairs",
    "groups",
    "kind_pairs",
    "pair_key",
    "record_unasked",
    "record_unscorable",
    "reuse_scores",
    "runs_of_scorer",
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


def reuse_scores(
    connection: Connection, run: RunRow, *, query_parts: str, item_parts: str, lists: bool = False
) -> None:
    """Copy scores of equal pairs under the same scorer from its latest earlier runs.

    Args:
        connection: The stage's transaction.
        run: The run that needs scores.
        query_parts: What the scorer sees of queries.
        item_parts: What it sees of items.
        lists: Whether it sees a query's candidates as a list: equal pairs are of equal lists.
    """
    earlier = runs_of_scorer(connection, run.scorer_fingerprint, but=run.id)
    if not earlier:
        return
    connection.execute(
        text(
            f"""
            WITH wanted AS MATERIALIZED (
                SELECT c.query_id, c.item_id,
                    {pair_key(query_parts, item_parts, lists=lists)} AS pair_key
                FROM candidate c JOIN query q ON q.id = c.query_id JOIN item i ON i.id = c.item_id
                WHERE c.run_id = :run
            )
            INSERT INTO pair_score (run_id, query_id, item_id, pair_key, margin, logit_positive,
                logit_negative, logsumexp, entropy, fired, fired_layer, uncertainty, plain_margin,
                written, reused_from)
            SELECT DISTINCT ON (w.query_id, w.item_id) :run, w.query_id, w.item_id, w.pair_key,
                p.margin, p.logit_positive, p.logit_negative, p.logsumexp, p.entropy, p.fired,
                p.fired_layer, p.uncertainty, p.plain_margin, p.written,
                coalesce(p.reused_from, p.run_id)
            FROM wanted w JOIN pair_score p
                ON p.pair_key = w.pair_key AND p.run_id = ANY(:earlier)
            ORDER BY w.query_id, w.item_id, p.run_id DESC
            ON CONFLICT DO NOTHING
            """
        ),
        {"run": run.id, "fingerprint": run.scorer_fingerprint, "earlier": earlier},
    )


def runs_of_scorer(
    connection: Connection, fingerprint: str | None, *, but: int | None = None
) -> list[int]:
    """The latest runs of a scorer, whose scores are looked through for equal pairs."""
    rows = connection.execute(
        text(
            "SELECT id FROM run WHERE scorer_fingerprint = :fingerprint AND id <> :run "
            "ORDER BY id DESC LIMIT :limit"
        ),
        {"fingerprint": fingerprint, "run": but or 0, "limit": _LOOK_BACK_RUNS},
    )
    return [int(row.id) for row in rows]


def pair_key(query_parts: str, item_parts: str, *, lists: bool) -> str:
    """SQL of what names a pair's contents under a scorer, `:fingerprint`.

    Args:
        query_parts: What the scorer sees of `q`, a query.
        item_parts: What it sees of `i`, an item.
        lists: Whether it sees them as a list of the candidates, `c`, of the query.
    """
    item = f"i.{HASH_COLUMN[item_parts]}"
    of_list = (
        f" || sha256(string_agg({item}, ''::bytea) OVER (PARTITION BY c.query_id "
        "ORDER BY c.coarse_rank ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING))"
    )
    return (
        f"sha256(convert_to(:fingerprint, 'UTF8') || q.{HASH_COLUMN[query_parts]} || {item}"
        f"{of_list if lists else ''})"
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
            {_UNSCORED}
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
    """Unscored pairs of the given kinds, grouped by the shared side.

    Yields:
        (id on the shared side, sorted ids on the other side), in id order; the other side of
        lists in coarse order.
    """
    order = "c.coarse_rank" if lists else None
    shared, other = (
        ("c.query_id", "c.item_id") if shared_side == "query" else ("c.item_id", "c.query_id")
    )
    wanted = [f"{kinds_to_text(pair.query)}/{kinds_to_text(pair.item)}" for pair in combinations]
    rows = connection.execute(
        text(
            f"""
            SELECT {shared} AS shared, array_agg({other} ORDER BY {order or other}) AS others
            {_UNSCORED}
                AND {_kinds("q", query_parts)} || '/' || {_kinds("i", item_parts)} = ANY(:wanted)
            GROUP BY 1 ORDER BY 1
            """
        ).execution_options(yield_per=1000),
        {"run": run_id, "wanted": wanted},
    )
    for row in rows:
        yield int(row.shared), [int(value) for value in row.others]


def tied_pairs(
    connection: Connection, run_id: int, *, quantum: float, fusion: float, guard: bool
) -> Iterator[tuple[int, list[int]]]:
    """Pairs whose tie entropy would decide, and whose entropy is not known.

    The rule is that of `scoring.tie_break`: equal steps of the score, above one half.

    Yields:
        (query id, item ids), sorted.
    """
    rows = connection.execute(
        text(
            """
            WITH scored AS (
                SELECT p.query_id, p.item_id, p.entropy, floor((:fusion * c.coarse_score
                    + (1 - :fusion) / (1 + exp(-p.margin::double precision))) / :quantum + 1e-5)
                    AS level
                FROM pair_score p JOIN candidate c ON c.run_id = p.run_id
                    AND c.query_id = p.query_id AND c.item_id = p.item_id
                WHERE p.run_id = :run
            ), tied AS (
                SELECT *, count(*) OVER (PARTITION BY query_id, level) AS size FROM scored
            )
            SELECT query_id, array_agg(item_id ORDER BY item_id) AS items FROM tied
            WHERE size > 1 AND entropy IS NULL AND (NOT :guard OR level * :quantum > 0.5 + 1e-5)
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
            {_UNSCORED}
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
            {_UNSCORED}
                AND ({_kinds("q", query_parts)} = '' OR {_kinds("i", item_parts)} = '')
            ON CONFLICT DO NOTHING
            """
        ),
        {"run": run_id, "query_parts": query_parts, "item_parts": item_parts},
    )


#: Nights to look back for scores; a night copies what it reuses, so one back is often enough.
_LOOK_BACK_RUNS = 30


_UNSCORED = """
    FROM candidate c JOIN query q ON q.id = c.query_id JOIN item i ON i.id = c.item_id
    WHERE c.run_id = :run AND NOT EXISTS (
        SELECT FROM pair_score p WHERE p.run_id = c.run_id AND p.query_id = c.query_id
            AND p.item_id = c.item_id)
"""


def _kinds(alias: str, parts: str) -> str:
    present = [
        f"CASE WHEN {alias}.{kind}_hash IS NOT NULL THEN '{kind}' END" for kind in parts.split(",")
    ]
    return f"concat_ws(',', {', '.join(present)})"
