"""The data of a report: a few queries of a run with the first places of both their rankings."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby

from PIL import Image
from sqlalchemy import Connection

from nightshift.results.captions import caption, first_image
from nightshift.results.evaluate import RunEvaluation, evaluate
from nightshift.results.rankings import RankedList, load_list
from nightshift.schema.errors import ConflictError, InputError, NotFoundError
from nightshift.schema.states import DecidedBy
from nightshift.stores.catalog.contents import StoredRecord
from nightshift.stores.files.images import read_image
from nightshift.stores.index import indexes
from nightshift.stores.ledger.run_types import RerankRun
from nightshift.stores.postgres.database import Database
from nightshift.stores.results import rankings
from nightshift.stores.results.coverage import Coverage, coverage_of
from nightshift.stores.results.rankings import RankedItem, Winners

__all__ = ["DEPTH", "QuerySection", "Report", "ReportCandidate", "WinnerChange", "load_report"]

#: How many places of each ranking a report shows.
DEPTH = 5

_THUMBNAIL_PX = 160
_CAPTION_LENGTH = 160


class WinnerChange(StrEnum):
    """The effect of fine scoring on the first place, in the order of a report's sections."""

    RAISED = "brought to the top"
    KEPT = "kept at the top"
    LOST = "lost from the top"
    MISSED = "not at the top"
    #: The last two are for queries without judgements.
    CHANGED = "another winner"
    SAME = "the same winner"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportCandidate:
    """One candidate of one query, with its place in both orders."""

    id: str
    caption: str
    #: At most 160 × 160 pixels, RGB; None without a readable image.
    image: Image.Image | None
    coarse_rank: int
    coarse_score: float
    final_rank: int
    margin: float | None
    probability: float | None
    decided_by: DecidedBy
    #: Layer at which the enhancement fired.
    fired_layer: int | None
    relevant: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class QuerySection:
    """One query with the first places of both its rankings."""

    id: str
    #: Empty for a query that is only an image.
    text: str
    image: Image.Image | None
    winner_change: WinnerChange
    #: How many candidates were re-ranked.
    depth: int
    coarse: tuple[ReportCandidate, ...]
    fine: tuple[ReportCandidate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that the HTML page and the PNG image show."""

    run: RerankRun
    n_items: int
    n_queries: int
    coverage: Coverage
    #: None where the queries have no judgements.
    evaluation: RunEvaluation | None
    sections: tuple[QuerySection, ...]


def load_report(database: Database, run_id: int, *, n_queries: int) -> Report:
    """Choose queries, and read their rankings, captions and thumbnails.

    One query of each winner change is shown, and more in proportion to their numbers.

    Raises:
        NotFoundError: If there is no such run.
        ConflictError: For a run that ranks nothing, or has ranked nothing yet.
    """
    with database.begin() as connection:
        run = rankings.require_rerank(connection, run_id)
        coverage = coverage_of(connection, run)
        ranked = rankings.winners(connection, run_id)
        if not ranked:
            raise ConflictError(
                f"run {run_id} is {run.state} and has ranked nothing yet: {coverage}"
            )
        chosen = _choose(ranked, n_queries)
        sections = tuple(_section(connection, run, winners) for winners in chosen)
        n_items = indexes.count_live(connection, run.index_id, revision=run.revision)
    try:
        evaluation = evaluate(database, run_id)
    except (NotFoundError, ConflictError):
        evaluation = None
    return Report(
        run=run,
        n_items=n_items,
        n_queries=len(ranked),
        coverage=coverage,
        evaluation=evaluation,
        sections=sections,
    )


def _choose(ranked: Sequence[Winners], n_queries: int) -> list[Winners]:
    """One query of each winner change that occurs, then more in proportion; deterministic."""
    order = list(WinnerChange)
    by_change = sorted(ranked, key=lambda row: (order.index(_winner_change(row)), row.query_id))
    groups = [list(group) for _, group in groupby(by_change, key=_winner_change)]
    seats = _seats([len(group) for group in groups], n_queries)
    return [
        group[(2 * place + 1) * len(group) // (2 * n)]
        for group, n in zip(groups, seats, strict=True)
        for place in range(n)
    ]


def _seats(sizes: Sequence[int], n: int) -> list[int]:
    """Share `n` places among groups by the largest quotient (Sainte-Laguë)."""
    seats = [0] * len(sizes)
    for _ in range(min(n, sum(sizes))):
        next_group = max(
            (i for i, size in enumerate(sizes) if seats[i] < size),
            key=lambda i: (seats[i] == 0, sizes[i] / (2 * seats[i] + 1)),
        )
        seats[next_group] += 1
    return seats


def _winner_change(winners: Winners) -> WinnerChange:
    if winners.fine_right is None:
        return WinnerChange.SAME if winners.same else WinnerChange.CHANGED
    if winners.fine_right:
        return WinnerChange.KEPT if winners.coarse_right else WinnerChange.RAISED
    return WinnerChange.LOST if winners.coarse_right else WinnerChange.MISSED


def _section(connection: Connection, run: RerankRun, winners: Winners) -> QuerySection:
    ranking = load_list(connection, run, winners.query_id)
    query = ranking.query
    shown = [row for row in ranking.rows if min(row.final_rank, row.coarse_rank) <= DEPTH]
    candidates = [_candidate(ranking, row) for row in shown]
    image = _thumbnail(query)
    has_text = query.hashes.text is not None
    return QuerySection(
        id=query.external_id,
        text=caption(query.parts, _CAPTION_LENGTH) if has_text or image is None else "",
        image=image,
        winner_change=_winner_change(winners),
        depth=len(ranking.rows),
        coarse=tuple(sorted(candidates, key=lambda row: row.coarse_rank)[:DEPTH]),
        fine=tuple(candidates[:DEPTH]),
    )


def _candidate(ranking: RankedList, row: RankedItem) -> ReportCandidate:
    item = ranking.items.get(row.item_id)
    return ReportCandidate(
        id=row.item,
        caption=caption(item.parts, _CAPTION_LENGTH) if item else "",
        image=_thumbnail(item) if item else None,
        coarse_rank=row.coarse_rank,
        coarse_score=row.coarse_score,
        final_rank=row.final_rank,
        margin=row.margin,
        probability=row.probability,
        decided_by=row.decided_by,
        fired_layer=row.fired_layer if row.fired else None,
        relevant=(row.relevance or 0) > 0,
    )


def _thumbnail(record: StoredRecord) -> Image.Image | None:
    part = first_image(record.parts)
    if part is None:
        return None
    try:
        image = read_image(part.uri, sha256=part.sha256)
    except InputError:
        # The file has changed or gone since the run read it; the report does without.
        return None
    image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.LANCZOS)
    return image
