"""What a report shows: a few queries of a run with the heads of both their rankings."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby

from PIL import Image
from sqlalchemy import Connection

from nightshift.results.captions import caption, first_image
from nightshift.results.evaluate import Evaluation, evaluate
from nightshift.results.rankings import RankedList, load_list
from nightshift.schema.errors import ConflictError, InputError, NotFoundError
from nightshift.schema.states import DecidedBy
from nightshift.stores.catalog.contents import StoredRecord
from nightshift.stores.files.images import read_image
from nightshift.stores.index import indexes
from nightshift.stores.ledger.runs import RunRow
from nightshift.stores.postgres.database import Database
from nightshift.stores.results import rankings
from nightshift.stores.results.coverage import Coverage, coverage_of
from nightshift.stores.results.rankings import RankedItem, Winners

__all__ = ["DEPTH", "Entry", "Outcome", "Report", "Sheet", "load_report"]

#: Places of each ranking that are shown.
DEPTH = 5

_THUMBNAIL_PX = 160
_CAPTION_LENGTH = 160


class Outcome(StrEnum):
    """What fine scoring did to the first place, in the order in which sheets are sorted."""

    RAISED = "brought to the top"
    KEPT = "kept at the top"
    LOST = "lost from the top"
    MISSED = "not at the top"
    #: The last two are of queries without judgements.
    CHANGED = "another winner"
    SAME = "the same winner"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One candidate of one query, in both orders."""

    id: str
    caption: str
    #: At most 160 × 160 pixels, RGB; None where it has no image or that cannot be read.
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
class Sheet:
    """One query with the heads of both its rankings."""

    id: str
    #: Empty for a query that is an image alone.
    text: str
    image: Image.Image | None
    outcome: Outcome
    #: How many candidates were re-ranked.
    depth: int
    coarse: tuple[Entry, ...]
    fine: tuple[Entry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the page and the picture show."""

    run: RunRow
    n_items: int
    n_queries: int
    covered: Coverage
    #: None where the queries have no judgements.
    evaluation: Evaluation | None
    sheets: tuple[Sheet, ...]


def load_report(database: Database, run_id: int, *, n_queries: int) -> Report:
    """Choose a query of each outcome and more in proportion, and read what they show.

    Raises:
        NotFoundError: Where there is no such run.
        ConflictError: For an index run, or one that has ranked nothing yet.
    """
    with database.begin() as connection:
        run = rankings.require_rerank(connection, run_id)
        covered = coverage_of(connection, run)
        ranked = rankings.winners(connection, run_id)
        if not ranked:
            raise ConflictError(
                f"run {run_id} is {run.state} and has ranked nothing yet: {covered}"
            )
        chosen = _choose(ranked, n_queries)
        sheets = tuple(_sheet(connection, run_id, winners) for winners in chosen)
        n_items = indexes.count_live(connection, run.index_id)
    try:
        evaluation = evaluate(database, run_id)
    except (NotFoundError, ConflictError):
        evaluation = None
    return Report(
        run=run,
        n_items=n_items,
        n_queries=len(ranked),
        covered=covered,
        evaluation=evaluation,
        sheets=sheets,
    )


def _choose(ranked: Sequence[Winners], n_queries: int) -> list[Winners]:
    """Of every outcome that occurs one, then more in proportion; always the same."""
    order = list(Outcome)
    by_outcome = sorted(ranked, key=lambda one: (order.index(_outcome(one)), one.query_id))
    groups = [list(group) for _, group in groupby(by_outcome, key=_outcome)]
    seats = _seats([len(group) for group in groups], n_queries)
    return [
        group[(2 * place + 1) * len(group) // (2 * n)]
        for group, n in zip(groups, seats, strict=True)
        for place in range(n)
    ]


def _seats(sizes: Sequence[int], n: int) -> list[int]:
    """How many of each group to show: the next goes to the largest quotient (Sainte-Laguë)."""
    seats = [0] * len(sizes)
    for _ in range(min(n, sum(sizes))):
        most = max(
            (i for i, size in enumerate(sizes) if seats[i] < size),
            key=lambda i: (seats[i] == 0, sizes[i] / (2 * seats[i] + 1)),
        )
        seats[most] += 1
    return seats


def _outcome(winners: Winners) -> Outcome:
    if winners.fine_right is None:
        return Outcome.SAME if winners.same else Outcome.CHANGED
    if winners.fine_right:
        return Outcome.KEPT if winners.coarse_right else Outcome.RAISED
    return Outcome.LOST if winners.coarse_right else Outcome.MISSED


def _sheet(connection: Connection, run_id: int, winners: Winners) -> Sheet:
    found = load_list(connection, run_id, winners.query_id)
    shown = [row for row in found.rows if min(row.final_rank, row.coarse_rank) <= DEPTH]
    entries = [_entry(found, row) for row in shown]
    image = _thumbnail(found.query)
    has_text = found.query.hashes.text is not None
    return Sheet(
        id=found.query.external_id,
        text=caption(found.query.parts, _CAPTION_LENGTH) if has_text or image is None else "",
        image=image,
        outcome=_outcome(winners),
        depth=len(found.rows),
        coarse=tuple(sorted(entries, key=lambda one: one.coarse_rank)[:DEPTH]),
        fine=tuple(entries[:DEPTH]),
    )


def _entry(found: RankedList, row: RankedItem) -> Entry:
    item = found.items.get(row.item_id)
    return Entry(
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
        # It was there when the run read it; a report can do without.
        return None
    image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.LANCZOS)
    return image
