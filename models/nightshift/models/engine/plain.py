"""The plain engine: every prompt whole, in batches of similar length. The reference for others."""

from collections.abc import Iterator, Sequence

import torch
from PIL import Image
from torch import Tensor

from nightshift.models.engine.enhancement import enhanced
from nightshift.models.engine.family import Family, PixelLimits, PromptImage, VisualTokens
from nightshift.models.engine.prompts import Prepared, Prompt, embed, prepare
from nightshift.models.engine.protocol import Group, PreparedGroups, Reading
from nightshift.models.engine.readout import read, readings_of
from nightshift.models.engine.runtime.token_budget import TokenBudget
from nightshift.models.engine.visual import encode_images, prepare_image
from nightshift.schema.params import EnhancementParams
from nightshift.scoring.prompts import Labels, Numbers

__all__ = ["PlainEngine", "alone", "batches"]

# Bounds the memory of a forward, padding included.
_TOKENS_PER_BATCH = 8192
_PROMPTS_PER_BATCH = 64


class PlainEngine:
    """An `Engine`.

    Args:
        family: The loaded model.
        limits: Bounds on the pixels of a picture.
    """

    def __init__(self, family: Family, limits: PixelLimits) -> None:
        self._family = family
        self._limits = limits
        self._budget = TokenBudget(_TOKENS_PER_BATCH)

    def prepare_image(self, image: Image.Image) -> PromptImage:
        """See `Engine.prepare_image`."""
        return prepare_image(self._family, image, self._limits)

    def prepare(self, groups: Sequence[Group]) -> PreparedGroups:
        """See `Engine.prepare`."""
        return prepare(self._family, self._limits, groups)

    @torch.inference_mode()
    def score(
        self, prepared: PreparedGroups, *, labels: Labels | Numbers, enhancement: EnhancementParams
    ) -> list[tuple[Reading, ...]]:
        """See `Engine.score`."""
        assert isinstance(prepared, Prepared)
        text = self._family.text
        label_ids = [text.label(word) for word in labels.words]
        seen = encode_images(self._family, prepared.images)
        found = self.read(prepared.prompts, seen, label_ids, enhancement)
        return prepared.arranged(found)

    def read(
        self,
        prompts: Sequence[Prompt],
        seen: Sequence[VisualTokens],
        label_ids: list[int],
        enhancement: EnhancementParams,
    ) -> dict[str, Reading]:
        """Read prompts whole.

        Args:
            prompts: In any order.
            seen: Visual tokens of the distinct pictures.
            label_ids: Tokens of the labels.
            enhancement: When and how the pictures are looked at again.

        Returns:
            By place.
        """
        found: dict[str, Reading] = {}

        def forward(batch: list[Prompt]) -> None:
            found.update(self._read_batch(batch, seen, label_ids, enhancement))
            self._family.counters.prefixes += len(batch)

        self._budget.run(prompts, batches, forward, alone)
        return found

    def _read_batch(
        self,
        batch: Sequence[Prompt],
        seen: Sequence[VisualTokens],
        label_ids: list[int],
        enhancement: EnhancementParams,
    ) -> dict[str, Reading]:
        lengths = [len(prompt.ids) for prompt in batch]
        embedded = embed(self._family, batch, seen)
        memories: list[Tensor | None] = [
            torch.cat([seen[i].tokens for i in prompt.memory]) if prompt.memory else None
            for prompt in batch
        ]
        if enhancement.memory == "all":
            memories = [row[:n] for row, n in zip(embedded.states, lengths, strict=True)]
        with enhanced(self._family.decoder, enhancement, memories, lengths) as state:
            states = self._family.decode(embedded)
        last = states[range(len(batch)), [n - 1 for n in lengths]]
        found = read(self._family.decoder.head_weight, last, label_ids)
        return readings_of([one.place for one in batch], found, state.traces())


def batches(prompts: Sequence[Prompt], budget: int) -> Iterator[list[Prompt]]:
    """Prompts of similar length together; a pure function of the prompts and the budget."""
    batch: list[Prompt] = []
    for prompt in sorted(prompts, key=lambda one: -len(one.ids)):
        # The first is the longest: the others are padded to it.
        longest = len(batch[0].ids) if batch else 0
        full = len(batch) == _PROMPTS_PER_BATCH or (len(batch) + 1) * longest > budget
        if batch and full:
            yield batch
            batch = []
        batch.append(prompt)
    if batch:
        yield batch


def alone(batch: list[Prompt]) -> tuple[str, int] | None:
    """Place and tokens of the one prompt of a batch; None if it has more."""
    return (batch[0].place, len(batch[0].ids)) if len(batch) == 1 else None
