"""Scores that the model writes: generated, parsed, and kept with the words (RetLLM's paper)."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from nightshift.models.engine.family import Family
from nightshift.models.engine.generation.enhancement import DecodingEnhancement
from nightshift.models.engine.generation.generate import generate
from nightshift.models.engine.plain import TOKENS_PER_BATCH, batches, single_prompt
from nightshift.models.engine.prompts import PreparedPrompts, Prompt
from nightshift.models.engine.protocol import PreparedGroups, Trace
from nightshift.models.engine.runtime.token_budget import TokenBudget
from nightshift.models.engine.visual import encode_images
from nightshift.models.inputs.images import PreparedImage
from nightshift.models.scorers.pairs import PairScorer, PreparedPairs
from nightshift.models.scorers.protocol import PairGroup, PairReading
from nightshift.schema.errors import ModelError
from nightshift.schema.params import EnhancementParams
from nightshift.scoring.log_odds import MAX_LOG_ODDS, of_probability, parse_number

__all__ = ["MAX_WRITTEN_TOKENS", "NumberScorer"]

#: Published. A number with four decimals takes about ten.
MAX_WRITTEN_TOKENS = 77


class NumberScorer:
    """A `Scorer` that has the model write a number from 0 to 1 about each pair.

    Greedy, raw logits alone deciding. What cannot be read as a number counts as 0, as published;
    the words are kept either way. No logits are read: ties ask `for_ties`.

    Args:
        family: The loaded model.
        asks: For a number; its prompts are used, its readings are not.
        for_ties: Reads entropies, by another prompt.
        enhancement: When and how images are shown again to the model, while reading and writing.
        max_tokens: Of a written score.

    Raises:
        ModelError: The enhancement cannot act while this model writes.
    """

    def __init__(
        self,
        family: Family,
        asks: PairScorer,
        for_ties: PairScorer,
        enhancement: EnhancementParams,
        max_tokens: int = MAX_WRITTEN_TOKENS,
    ) -> None:
        if family.layer_ops is None and enhancement.trigger != "never":
            raise ModelError(
                f"{family.report.family}: layers that cannot be taken apart cannot look at the "
                "image again while they write; turn it off (--enhancement off)"
            )
        self.fingerprint = asks.fingerprint
        self._family = family
        self._asks = asks
        self._for_ties = for_ties
        self._enhancement = enhancement
        self._max_tokens = max_tokens
        self._budget = TokenBudget(TOKENS_PER_BATCH)

    def plain(self) -> "NumberScorer":
        """See `Scorer.plain`."""
        off = EnhancementParams(trigger="never")
        return NumberScorer(self._family, self._asks, self._for_ties.plain(), off, self._max_tokens)

    def for_ties(self) -> PairScorer:
        """See `Scorer.for_ties`."""
        return self._for_ties

    def prepare_image(self, image: Image.Image) -> PreparedImage:
        """See `Scorer.prepare_image`."""
        return self._asks.prepare_image(image)

    def prepare(self, groups: Sequence[PairGroup]) -> PreparedGroups:
        """See `Scorer.prepare`."""
        return self._asks.prepare(groups)

    @torch.inference_mode()
    def score(self, prepared: PreparedGroups) -> list[tuple[PairReading, ...]]:
        """See `Scorer.score`."""
        assert isinstance(prepared, PreparedPairs)
        prompts = prepared.groups
        assert isinstance(prompts, PreparedPrompts)
        visual_tokens = encode_images(self._family, prompts.images)
        written: dict[str, tuple[list[int], Trace]] = {}
        begun: list[float] = []

        def write(batch: list[Prompt]) -> None:
            enhancement = DecodingEnhancement(
                self._family.decoder, self._enhancement, batch, visual_tokens
            )
            ids = generate(
                self._family,
                batch,
                visual_tokens,
                max_tokens=self._max_tokens,
                stop_ids=self._family.stop_ids,
                enhancement=enhancement,
            )
            begun.extend(enhancement.logsumexps)
            names = [prompt.name for prompt in batch]
            written.update(zip(names, zip(ids, enhancement.traces, strict=True), strict=True))
            self._family.counters.prefixes += len(batch)

        self._budget.run(prompts.prompts, batches, write, single_prompt)
        # One number may well be written of many pairs; one sum of logits may not.
        prompts.refuse_equal(begun)
        readings = {
            prompt.name: _reading(self._family.text.read(ids), trace)
            for prompt in prompts.prompts
            for ids, trace in [written[prompt.name]]
        }
        # One question a pair: a number has no swapped or mirrored twin.
        return [
            tuple(readings[f"{group}/{suffix}"] for ((group, suffix),) in of_group)
            for of_group in prepared.places
        ]


def _reading(written: str, trace: Trace) -> PairReading:
    number = parse_number(written)
    return PairReading(
        margin=float(np.float32(-MAX_LOG_ODDS if number is None else of_probability(number))),
        logit_positive=None,
        logit_negative=None,
        logsumexp=None,
        entropy=None,
        trace=trace,
        written=written,
    )
