"""The plain engine: complete prompts in batches of similar length. The reference for others."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from nightshift.models.engine.base import BaseEngine
from nightshift.models.engine.enhancement import enhanced
from nightshift.models.engine.family import Family, PixelLimits, VisualTokens
from nightshift.models.engine.prompts import PreparedPrompts, Prompt, embed
from nightshift.models.engine.protocol import Reading
from nightshift.models.engine.readout import read_labels, readings_by_name
from nightshift.schema.params import EnhancementParams

__all__ = ["TOKENS_PER_BATCH", "PlainEngine", "batches", "single_prompt"]

#: Tokens of one forward of complete prompts at most, padding included; bounds its memory.
TOKENS_PER_BATCH = 8192
_PROMPTS_PER_BATCH = 64


class PlainEngine(BaseEngine):
    """An `Engine` that reads each prompt complete, padded to the longest of its batch.

    Args:
        family: The loaded model.
        limits: Bounds on the pixels of an image.
        tokens_per_batch: Tokens of one forward at most, padding included.
    """

    def __init__(
        self, family: Family, limits: PixelLimits, *, tokens_per_batch: int = TOKENS_PER_BATCH
    ) -> None:
        super().__init__(family, limits, tokens_per_batch=tokens_per_batch)

    def read(
        self,
        prompts: Sequence[Prompt],
        visual_tokens: Sequence[VisualTokens],
        label_ids: list[int],
        enhancement: EnhancementParams,
    ) -> dict[str, Reading]:
        """Read complete prompts.

        Args:
            prompts: In any order.
            visual_tokens: Of the distinct images.
            label_ids: Tokens of the labels.
            enhancement: When and how the enhancement acts.

        Returns:
            Readings by name, `group/suffix`.

        Raises:
            InputError: A prompt does not fit this device's memory, or a reading is not finite;
                `subject_id` is its name.
        """
        readings: dict[str, Reading] = {}

        def forward(batch: list[Prompt]) -> None:
            readings.update(self._read_batch(batch, visual_tokens, label_ids, enhancement))
            self._family.counters.prefixes += len(batch)

        self._budget.run(prompts, batches, forward, single_prompt)
        return readings

    def _read_prepared(
        self,
        prepared: PreparedPrompts,
        visual_tokens: Sequence[VisualTokens],
        label_ids: list[int],
        enhancement: EnhancementParams,
    ) -> dict[str, Reading]:
        return self.read(prepared.prompts, visual_tokens, label_ids, enhancement)

    def _read_batch(
        self,
        batch: Sequence[Prompt],
        visual_tokens: Sequence[VisualTokens],
        label_ids: list[int],
        enhancement: EnhancementParams,
    ) -> dict[str, Reading]:
        lengths = [len(prompt.ids) for prompt in batch]
        embedded = embed(self._family, batch, visual_tokens)
        # (n, width) of each prompt: the image tokens that its feed-forward blends in.
        memories: list[Tensor | None] = [
            torch.cat([visual_tokens[i].tokens for i in prompt.memory]) if prompt.memory else None
            for prompt in batch
        ]
        if enhancement.memory == "all":
            memories = [row[:n] for row, n in zip(embedded.states, lengths, strict=True)]
        with enhanced(self._family.decoder, enhancement, memories, lengths) as hooked:
            states = self._family.decode(embedded)
        ends = states[range(len(batch)), [n - 1 for n in lengths]]
        readouts = read_labels(self._family.decoder.head_weight, ends, label_ids)
        names = [prompt.name for prompt in batch]
        return readings_by_name(names, readouts, hooked.traces())


def batches(prompts: Sequence[Prompt], budget: int) -> Iterator[list[Prompt]]:
    """Put prompts of similar length together; a pure function of the prompts and the budget.

    Args:
        prompts: In any order.
        budget: Tokens of a batch at most, padding included.

    Yields:
        One prompt at least, even if it exceeds the budget.
    """
    batch: list[Prompt] = []
    for prompt in sorted(prompts, key=lambda prompt: -len(prompt.ids)):
        # The first is the longest: the others are padded to it.
        longest = len(batch[0].ids) if batch else 0
        full = len(batch) == _PROMPTS_PER_BATCH or (len(batch) + 1) * longest > budget
        if batch and full:
            yield batch
            batch = []
        batch.append(prompt)
    if batch:
        yield batch


def single_prompt(batch: list[Prompt]) -> tuple[str, int] | None:
    """Place and tokens of the only prompt of a batch; None if it has more."""
    return (batch[0].name, len(batch[0].ids)) if len(batch) == 1 else None
