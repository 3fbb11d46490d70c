"""RetLLM (Su & Wang, ICASSP 2026, arXiv 2602.22278): fine scoring of retrieved pairs.

For each pair one prefill asks whether the candidate matches, "True or False"; the score is the
log-odds of the two answers at the last position. While the prompt is read, a layer that leaves
the answer uncertain makes the next one look at the picture again (visual enhancement). The
entropy of the whole vocabulary at the same position breaks ties later (`scoring.tie_break`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from nightshift.models.content import ItemContent
from nightshift.models.engine.family import Family, PixelLimits
from nightshift.models.engine.packed import PackedEngine
from nightshift.models.engine.plain import PlainEngine
from nightshift.models.scorer import (
    Engine,
    Group,
    PairGroup,
    PairReading,
    Piece,
    PreparedGroups,
    Reading,
)
from nightshift.schema.errors import InputError
from nightshift.schema.models import ModelFacts
from nightshift.schema.runs import EnhancementParams, ScorerParams
from nightshift.scoring.framings import framing
from nightshift.scoring.prompts import Content, Framing, Segment

__all__ = ["PRESETS", "RetLLM", "load"]

#: The enhancement as the released code has it, as the paper has it, and as we do by default.
PRESETS = MappingProxyType(
    {
        "default": EnhancementParams(),
        "code": EnhancementParams(
            alpha=0.12, memory="all", lens_norm="none", norm_match="sequence"
        ),
        "paper": EnhancementParams(alpha=0.3, memory="image", norm_match="sequence"),
        "off": EnhancementParams(trigger="never"),
    }
)


def load(family: Family, params: ScorerParams, facts: ModelFacts) -> "RetLLM":
    """Bind RetLLM to a loaded model, with the packed engine where its family allows it.

    Raises:
        ModelError: A label is not one token of the model.
    """
    rule = framing(params.framing)
    for label in (rule.labels.positive, rule.labels.negative):
        family.text.label(label)
    limits = PixelLimits(min_pixels=params.min_pixels, max_pixels=params.max_pixels)
    engine: Engine = PlainEngine(family, limits)
    if family.steps is not None:
        engine = PackedEngine(family, family.steps, limits)
    return RetLLM(engine, rule, params.enhancement, facts.fingerprint)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    groups: PreparedGroups
    #: For each pair group, where its others stand among the engine's groups.
    places: tuple[tuple[tuple[int, int], ...], ...]

    @property
    def n_suffixes(self) -> int:
        return self.groups.n_suffixes


class RetLLM:
    """A `Scorer`.

    Args:
        engine: Reads label logits.
        rule: The framing: prompts and labels.
        enhancement: When and how the picture is looked at again.
        fingerprint: Of weights and all parameters.
    """

    def __init__(
        self, engine: Engine, rule: Framing, enhancement: EnhancementParams, fingerprint: str
    ) -> None:
        self.fingerprint = fingerprint
        self._engine = engine
        self._rule = rule
        self._enhancement = enhancement

    def plain(self) -> "RetLLM":
        """See `Scorer.plain`."""
        return RetLLM(self._engine, self._rule, PRESETS["off"], self.fingerprint)

    def prepare(self, groups: Sequence[PairGroup]) -> PreparedGroups:
        """See `Scorer.prepare`."""
        prompts: list[Group] = []
        places = []
        for i, group in enumerate(groups):
            begun: dict[tuple[Segment | int, ...], int] = {}
            where = []
            for j, other in enumerate(group.others):
                prefix, key, suffix = self._render(group, other, f"{i}/{j}", j)
                if key not in begun:
                    begun[key] = len(prompts)
                    prompts.append(Group(prefix=prefix, suffixes=()))
                at = begun[key]
                suffixes = prompts[at].suffixes
                where.append((at, len(suffixes)))
                prompts[at] = Group(prefix=prefix, suffixes=(*suffixes, suffix))
            places.append(tuple(where))
        return _Prepared(groups=self._engine.prepare(prompts), places=tuple(places))

    def score(self, prepared: PreparedGroups) -> list[tuple[PairReading, ...]]:
        """See `Scorer.score`."""
        assert isinstance(prepared, _Prepared)
        readings = self._engine.score(
            prepared.groups, labels=self._rule.labels, enhancement=self._enhancement
        )
        return [
            tuple(_pair_reading(readings[group][suffix]) for group, suffix in where)
            for where in prepared.places
        ]

    def _render(
        self, group: PairGroup, other: ItemContent, place: str, number: int
    ) -> tuple[tuple[Piece, ...], tuple[Segment | int, ...], tuple[Piece, ...]]:
        """Prefix, what tells it from others of the group, suffix."""
        query, candidate = group.shared, other
        if group.shared_side == "candidate":
            query, candidate = candidate, query
        try:
            prompt = self._rule.render(_content(query), _content(candidate))
        except InputError as error:
            raise InputError(error.message, error.reason, place) from error
        images = {"query": query.images, "candidate": candidate.images}

        def pieces(segments: Sequence[Segment]) -> tuple[Piece, ...]:
            return tuple(s if isinstance(s, str) else images[s.side][s.index] for s in segments)

        # A prompt that shares the other side has a beginning of its own.
        shared = prompt.shared_side == group.shared_side
        key = prompt.prefix if shared else (number, *prompt.prefix)
        return pieces(prompt.prefix), key, pieces(prompt.suffix)


def _content(content: ItemContent) -> Content:
    return Content(texts=content.texts, n_images=len(content.images))


def _pair_reading(reading: Reading) -> PairReading:
    positive, negative = reading.label_logits
    return PairReading(
        margin=float(np.float32(positive - negative)),
        logit_positive=float(positive),
        logit_negative=float(negative),
        logsumexp=reading.logsumexp,
        entropy=reading.entropy,
        trace=reading.trace,
    )
