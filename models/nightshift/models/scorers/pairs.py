"""Score pairs by a method: render its prompts, read them by an engine, and take log-odds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from nightshift.models.engine.protocol import Engine, Group, Piece, PreparedGroups, Reading
from nightshift.models.inputs.codecs.codec import Codec
from nightshift.models.inputs.content import ItemContent
from nightshift.models.inputs.images import PreparedImage
from nightshift.models.scorers.protocol import PairGroup, PairReading
from nightshift.models.scorers.rendering import content_of, pieces, remembered
from nightshift.schema.errors import InputError
from nightshift.schema.params import EnhancementParams
from nightshift.scoring.log_odds import over_vocabulary
from nightshift.scoring.prompts import Framing, Segment, Side

__all__ = ["PairScorer", "PreparedPairs"]

_OFF = EnhancementParams(trigger="never")


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedPairs:
    """The prompts of a `PairScorer`, prepared."""

    groups: PreparedGroups
    #: For each pair of each pair group, where its prompts stand among the engine's groups.
    places: tuple[tuple[tuple[tuple[int, int], ...], ...], ...]

    @property
    def n_suffixes(self) -> int:
        """The number of prompts."""
        return self.groups.n_suffixes


class PairScorer:
    """A `Scorer`.

    Args:
        engine: Reads label logits.
        rules: What is asked of each pair, as `framings_of` returned it; a score is their mean.
        enhancement: When and how images are shown again to the model.
        fingerprint: Of weights and all parameters.
        coded: The codec that the images of a side go through, where they do.
        over_all: Whether the score is the positive label against all other words, not only against
            the negative label.
        subtract_prior: Whether what each question gets without query and candidate is taken off.
    """

    def __init__(
        self,
        engine: Engine,
        rules: Sequence[Framing],
        enhancement: EnhancementParams,
        fingerprint: str,
        coded: Mapping[Side, Codec] | None = None,
        *,
        over_all: bool = False,
        subtract_prior: bool = False,
    ) -> None:
        self.fingerprint = fingerprint
        self._engine = engine
        self._rules = rules
        self._enhancement = enhancement
        self._coded = coded or {}
        self._over_all = over_all
        self._subtract_prior = subtract_prior
        self._priors: list[np.float32] | None = None

    def plain(self) -> "PairScorer":
        """See `Scorer.plain`."""
        return PairScorer(
            self._engine,
            self._rules,
            _OFF,
            self.fingerprint,
            self._coded,
            over_all=self._over_all,
            subtract_prior=self._subtract_prior,
        )

    def for_ties(self) -> "PairScorer":
        """See `Scorer.for_ties`."""
        return self

    def prepare_image(self, image: Image.Image) -> PreparedImage:
        """See `Scorer.prepare_image`."""
        return self._engine.prepare_image(image)

    def prepare(self, groups: Sequence[PairGroup]) -> PreparedGroups:
        """See `Scorer.prepare`."""
        prompts: list[Group] = []
        places = []
        for i, group in enumerate(groups):
            place_of: dict[tuple[Segment | int | bool, ...], int] = {}
            of_group = []
            for j, other in enumerate(group.others):
                of_pair = []
                for rule in self._rules:
                    beginning, key, suffix = self._render(rule, group, other, f"{i}/{j}", j)
                    if key not in place_of:
                        place_of[key] = len(prompts)
                        prompts.append(beginning)
                    at = place_of[key]
                    suffixes = prompts[at].suffixes
                    of_pair.append((at, len(suffixes)))
                    prompts[at] = replace(prompts[at], suffixes=(*suffixes, suffix))
                of_group.append(tuple(of_pair))
            places.append(tuple(of_group))
        return PreparedPairs(groups=self._engine.prepare(prompts), places=tuple(places))

    def score(self, prepared: PreparedGroups) -> list[tuple[PairReading, ...]]:
        """See `Scorer.score`."""
        assert isinstance(prepared, PreparedPairs)
        labels = self._rules[0].labels
        readings = self._engine.score(prepared.groups, labels=labels, enhancement=self._enhancement)
        if self._priors is None:
            self._priors = self._read_priors()
        priors = self._priors

        def reading(places: tuple[tuple[int, int], ...]) -> PairReading:
            return _mean(
                [
                    self._pair_reading(readings[group][suffix], rule, prior)
                    for (group, suffix), rule, prior in zip(
                        places, self._rules, priors, strict=True
                    )
                ]
            )

        return [tuple(map(reading, of_group)) for of_group in prepared.places]

    def _read_priors(self) -> list[np.float32]:
        """Score each framing without query and candidate; zero where that is not subtracted."""
        if not self._subtract_prior:
            return [np.float32(0)] * len(self._rules)
        framings = [rule.context_free() for rule in self._rules]
        prompts = [
            Group(prefix=pieces(framing.prefix, {}, {}), suffixes=(pieces(framing.suffix, {}, {}),))
            for framing in framings
        ]
        readings = self._engine.score(
            self._engine.prepare(prompts), labels=self._rules[0].labels, enhancement=_OFF
        )
        return [
            np.float32(self._pair_reading(reading, rule, np.float32(0)).margin)
            for (reading,), rule in zip(readings, self._rules, strict=True)
        ]

    def _pair_reading(self, reading: Reading, rule: Framing, prior: np.float32) -> PairReading:
        positive, negative = reading.label_logits
        if rule.labels != self._rules[0].labels:
            # A swapped question has the same two labels, the other way round.
            positive, negative = negative, positive
        margin = positive - negative
        if self._over_all:
            margin = np.float32(over_vocabulary(positive, reading.logsumexp))
        return PairReading(
            margin=float(margin - prior),
            logit_positive=float(positive),
            logit_negative=float(negative),
            logsumexp=reading.logsumexp,
            entropy=reading.entropy,
            trace=reading.trace,
        )

    def _render(
        self, rule: Framing, group: PairGroup, other: ItemContent, place: str, number: int
    ) -> tuple[Group, tuple[Segment | int | bool, ...], tuple[Piece, ...]]:
        """A prompt's beginning, what tells it from others of the group, and its end."""
        query, candidate = group.shared, other
        if group.shared_side == "candidate":
            query, candidate = candidate, query
        try:
            prompt = rule.render(content_of(query), content_of(candidate))
        except InputError as error:
            raise InputError(error.message, error.reason, place) from error
        # A prompt that shares the other side has a beginning of its own.
        shared = prompt.shared_side == group.shared_side
        enhanced = remembered(prompt, self._enhancement)
        key = (*enhanced, *prompt.prefix) if shared else (*enhanced, number, *prompt.prefix)
        sides: dict[Side, ItemContent] = {"query": query, "candidate": candidate}
        prefix = pieces(prompt.prefix, sides, self._coded)
        return (
            Group(prefix=prefix, suffixes=(), remembered=enhanced),
            key,
            pieces(prompt.suffix, sides, self._coded),
        )


def _mean(readings: Sequence[PairReading]) -> PairReading:
    """Average the readings of one pair's framings; the trace is the first one's."""
    if len(readings) == 1:
        return readings[0]

    def mean(values: Sequence[float | None]) -> float:
        return float(np.array(values, np.float64).mean().astype(np.float32))

    return PairReading(
        margin=mean([reading.margin for reading in readings]),
        logit_positive=mean([reading.logit_positive for reading in readings]),
        logit_negative=mean([reading.logit_negative for reading in readings]),
        logsumexp=mean([reading.logsumexp for reading in readings]),
        entropy=mean([reading.entropy for reading in readings]),
        trace=readings[0].trace,
    )
