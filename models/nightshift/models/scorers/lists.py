"""List-wise scores: one prompt numbers a query's candidates, and the model picks one (§1.3)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nightshift.models.engine.protocol import Engine, Group, PreparedGroups, Reading
from nightshift.models.inputs.codecs.codec import Codec
from nightshift.models.inputs.content import ItemContent
from nightshift.models.inputs.images import PreparedImage
from nightshift.models.scorers.protocol import PairGroup, PairReading
from nightshift.models.scorers.rendering import content_of, pieces, remembered
from nightshift.schema.errors import InputError
from nightshift.schema.params import EnhancementParams, ScorerParams
from nightshift.scoring.log_odds import over_list
from nightshift.scoring.prompts import MAX_LISTED, Content, Framing, Numbers, Side

__all__ = ["ListScorer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _PreparedLists:
    groups: PreparedGroups
    #: For each list and order, the candidates in it.
    orders: tuple[tuple[tuple[int, ...], ...], ...]

    @property
    def n_suffixes(self) -> int:
        return self.groups.n_suffixes


class ListScorer:
    """A `Scorer` whose groups are whole lists: a query and its candidates, in their order.

    The score of a candidate is the logit of its number against those of all other numbers.
    Entropy and trace are the list's: every candidate has the same ones.

    Args:
        engine: Reads label logits.
        rule: Asks for the number of one candidate.
        params: How many orders are asked about, and the enhancement.
        fingerprint: Of weights and all parameters.
        coded: The codec that the images of a side go through, where they do.
    """

    def __init__(
        self,
        engine: Engine,
        rule: Framing,
        params: ScorerParams,
        fingerprint: str,
        coded: Mapping[Side, Codec] | None = None,
    ) -> None:
        self.fingerprint = fingerprint
        self._engine = engine
        self._rule = rule
        self._params = params
        self._coded = coded or {}

    def plain(self) -> "ListScorer":
        """See `Scorer.plain`."""
        off = self._params.model_copy(update={"enhancement": EnhancementParams(trigger="never")})
        return ListScorer(self._engine, self._rule, off, self.fingerprint, self._coded)

    def for_ties(self) -> "ListScorer":
        """See `Scorer.for_ties`."""
        return self

    def prepare_image(self, image: Image.Image) -> PreparedImage:
        """See `Scorer.prepare_image`."""
        return self._engine.prepare_image(image)

    def prepare(self, groups: Sequence[PairGroup]) -> PreparedGroups:
        """See `Scorer.prepare`."""
        prompts: list[Group] = []
        orders = []
        for place, group in enumerate(groups):
            of_list = tuple(_rotations(len(group.others), self._params.list_orders))
            prompts.append(self._prompts(group, of_list, str(place)))
            orders.append(of_list)
        return _PreparedLists(groups=self._engine.prepare(prompts), orders=tuple(orders))

    def score(self, prepared: PreparedGroups) -> list[tuple[PairReading, ...]]:
        """See `Scorer.score`."""
        assert isinstance(prepared, _PreparedLists)
        longest = max((len(order) for orders in prepared.orders for order in orders), default=1)
        readings = self._engine.score(
            prepared.groups, labels=Numbers(k=longest), enhancement=self._params.enhancement
        )
        return [
            tuple(_readings(of_list, orders))
            for of_list, orders in zip(readings, prepared.orders, strict=True)
        ]

    def _prompts(self, group: PairGroup, orders: Sequence[tuple[int, ...]], place: str) -> Group:
        if group.shared_side != "query":
            msg = "a list is of one query: its pairs are grouped by it"
            raise ValueError(msg)
        if len(group.others) > MAX_LISTED:
            raise InputError(
                f"a list of {len(group.others)} candidates has numbers of two digits, which are "
                f"no single tokens: at most {MAX_LISTED}",
                "list_too_long",
                place,
            )
        query = content_of(group.shared)
        try:
            prompts = [self._rule.render(query, _list(group.others, order)) for order in orders]
        except InputError as error:
            raise InputError(error.message, error.reason, place) from error
        sides: dict[Side, ItemContent] = {"query": group.shared}
        return Group(
            prefix=pieces(prompts[0].prefix, sides, self._coded),
            suffixes=tuple(pieces(prompt.suffix, sides, self._coded) for prompt in prompts),
            remembered=remembered(prompts[0], self._params.enhancement),
        )


def _rotations(length: int, n_orders: int) -> Iterator[tuple[int, ...]]:
    """Orders in which each candidate stands at different places; the list's own comes first."""
    n_orders = min(n_orders, length)
    for i in range(n_orders):
        start = i * length // n_orders
        yield (*range(start, length), *range(start))


def _list(candidates: Sequence[ItemContent], order: Sequence[int]) -> Content:
    """A list as one content; images in it leave the framing without a prompt."""
    return Content(
        texts=tuple("\n".join(candidates[i].texts) for i in order),
        n_images=sum(candidate.n_images for candidate in candidates),
    )


def _readings(
    of_list: Sequence[Reading], orders: Sequence[tuple[int, ...]]
) -> Iterator[PairReading]:
    length = len(orders[0])
    logits, odds = np.empty((2, len(orders), length))
    for i, (reading, order) in enumerate(zip(of_list, orders, strict=True)):
        of_order: NDArray[np.float32] = reading.label_logits[:length]
        logits[i, list(order)] = of_order
        odds[i, list(order)] = over_list(of_order)
    margins = odds.mean(axis=0).astype(np.float32)
    for margin, logit in zip(margins.tolist(), logits.mean(axis=0).tolist(), strict=True):
        yield PairReading(
            margin=margin,
            logit_positive=logit,
            # Of all other numbers together.
            logit_negative=logit - margin,
            logsumexp=float(np.mean([reading.logsumexp for reading in of_list])),
            entropy=float(np.mean([reading.entropy for reading in of_list])),
            trace=of_list[0].trace,
        )
