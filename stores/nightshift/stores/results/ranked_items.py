"""One row of a final ranking, and streams of such rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Result, Row

from nightshift.schema.states import DecidedBy

__all__ = ["PAGE_ROWS", "RankedItem", "RankingStream"]

#: Rows in memory at a time.
PAGE_ROWS = 2500


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedItem:
    """One row of a final ranking, with everything that decided its place."""

    run_id: int
    #: External ids: of the query in its file, of the item in its source.
    query: str
    item: str
    #: Both from 1.
    final_rank: int
    coarse_rank: int
    #: Cosine similarity.
    coarse_score: float
    #: Log-odds of the positive label; None if scoring failed, as are the values derived from it.
    margin: float | None
    #: Logistic of the margin, 0 to 1.
    probability: float | None
    #: Of the next token over the whole vocabulary, in nats.
    entropy: float | None
    #: Whether the visual enhancement acted, and at which decoder layer.
    fired: bool | None
    fired_layer: int | None
    #: Candidates of one query whose quantised scores are equal share a group.
    tie_group: int | None
    tie_size: int | None
    decided_by: DecidedBy
    scorer_fingerprint: str
    #: From the judgements of the query set; None where unjudged.
    relevance: int | None
    #: Row ids, for looking the contents up.
    query_id: int
    item_id: int


class RankingStream(Iterator[RankedItem]):
    """Rows of rankings as Postgres gives them; read once, row by row or in pages of values."""

    def __init__(self, result: Result[Any]) -> None:
        self._result = result
        self._rows = map(_ranked_item, result)

    def __next__(self) -> RankedItem:
        return next(self._rows)

    def pages(self) -> Iterator[Sequence[Sequence[Any]]]:
        """Pages of rows, each with the values of `RankedItem` in the order of its fields."""
        yield from self._result.partitions(PAGE_ROWS)


def _ranked_item(row: Row[Any]) -> RankedItem:
    values = row._asdict()
    return RankedItem(**{**values, "decided_by": DecidedBy(values["decided_by"])})
