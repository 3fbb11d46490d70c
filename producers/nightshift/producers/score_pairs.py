"""Pairs of a run by what its scorer is shown of them, and by whether there is a prompt for that."""

from typing import TypedDict

from sqlalchemy import Connection

from nightshift.schema.params import RerankParams
from nightshift.scoring.methods.registry import framings_of
from nightshift.stores.ledger.run_types import RerankRun
from nightshift.stores.results import pairs
from nightshift.stores.results.pairs import KindPair

__all__ = ["ShownParts", "kinds_by_prompt", "record_without_prompt", "shown"]


class ShownParts(TypedDict):
    """The parts that a scorer is shown, and whether it sees candidates as lists."""

    query_parts: str
    item_parts: str
    lists: bool


def shown(params: RerankParams) -> ShownParts:
    """The parts that the scorer of a run is shown, and whether as lists."""
    return {
        "query_parts": params.query_parts,
        "item_parts": params.item_parts,
        "lists": params.scorer.score == "listwise",
    }


def kinds_by_prompt(
    connection: Connection, run: RerankRun
) -> tuple[list[KindPair], list[KindPair]]:
    """Kinds of content of unscored pairs: those that the framing has a prompt for, and others."""
    framing, *_ = framings_of(run.params.scorer)
    with_prompt: list[KindPair] = []
    without_prompt: list[KindPair] = []
    kinds = pairs.kind_pairs(
        connection,
        run.id,
        query_parts=run.params.query_parts,
        item_parts=run.params.item_parts,
    )
    for kind in kinds:
        has_prompt = (kind.query, kind.item) in framing.templates
        (with_prompt if has_prompt else without_prompt).append(kind)
    return with_prompt, without_prompt


def record_without_prompt(
    connection: Connection, run: RerankRun, without_prompt: list[KindPair]
) -> None:
    """Record pairs of kinds that the framing has no prompt for: they would be planned forever."""
    framing, *_ = framings_of(run.params.scorer)
    pairs.record_without_prompt(
        connection,
        run.id,
        query_parts=run.params.query_parts,
        item_parts=run.params.item_parts,
        combinations=without_prompt,
        message=f"framing {framing.name!r} has no prompt for what this run shows of this query and "
        "item: choose other --query-parts or --item-parts, or another framing",
    )
