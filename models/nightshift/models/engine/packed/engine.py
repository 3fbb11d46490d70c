"""The packed engine: the shared beginning of prompts once, their ends in blocks behind it.

All prompts of a batch go through the decoder side by side, layer after layer. A layer first
advances the prefixes, which attend to themselves; then the suffixes, in blocks: each attends to
the keys and values of its prefix and, causally, to itself. No mask grows with the number of
suffixes, and no keys or values outlive their layer. See `docs/decisions`, packed scoring.
"""

import logging
from collections.abc import Sequence

import torch
from PIL import Image

from nightshift.models.engine.enhancement import effective
from nightshift.models.engine.family import Family, LayerOps, PixelLimits, PromptImage, VisualTokens
from nightshift.models.engine.packed.batches import alone, batches, max_variants, repacking_reason
from nightshift.models.engine.packed.forward import PackedForward
from nightshift.models.engine.plain import PlainEngine
from nightshift.models.engine.prompts import Prepared, PromptGroup, prepare
from nightshift.models.engine.protocol import Group, PreparedGroups, Reading
from nightshift.models.engine.readout import read, readings_of
from nightshift.models.engine.runtime.token_budget import TokenBudget
from nightshift.models.engine.visual import encode_images, prepare_image
from nightshift.schema.params import EnhancementParams
from nightshift.scoring.prompts import Labels, Numbers

__all__ = ["PackedEngine"]

_log = logging.getLogger(__name__)

# Tokens whose states a forward keeps, prefixes and suffixes together.
_TOKENS_PER_BATCH = 32_768


class PackedEngine:
    """An `Engine`. What it cannot pack exactly it reads whole, by the plain one, and says so.

    Args:
        family: The loaded model.
        steps: Its layers, taken apart.
        limits: Bounds on the pixels of a picture.
    """

    def __init__(self, family: Family, steps: LayerOps, limits: PixelLimits) -> None:
        self._family = family
        self._steps = steps
        self._limits = limits
        self._budget = TokenBudget(_TOKENS_PER_BATCH)
        self._plain = PlainEngine(family, limits)
        self._told: set[str] = set()

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
        enhancement = effective(enhancement)
        seen = encode_images(self._family, prepared.images)
        reason = repacking_reason(enhancement)
        if reason is None and any(not len(group.prefix.ids) for group in prepared.groups):
            reason = "their first tokens differ"
        if reason:
            self._tell(reason)
            found = self._plain.read(prepared.prompts, seen, label_ids, enhancement)
        else:
            found = self._read(prepared.groups, seen, label_ids, enhancement)
        return prepared.arranged(found)

    def _read(
        self,
        groups: Sequence[PromptGroup],
        seen: Sequence[VisualTokens],
        label_ids: list[int],
        enhancement: EnhancementParams,
    ) -> dict[str, Reading]:
        found: dict[str, Reading] = {}

        def forward(batch: list[PromptGroup]) -> None:
            lockstep = PackedForward(self._family, self._steps, batch, seen, enhancement)
            found_here = read(self._family.decoder.head_weight, lockstep.run(), label_ids)
            found.update(readings_of(lockstep.places, found_here, lockstep.traces()))
            self._family.counters.prefixes += len(batch)

        def variants(group: PromptGroup) -> int:
            return max_variants(group, enhancement, len(self._family.decoder.layers))

        self._budget.run(
            groups, lambda work, budget: batches(work, budget, variants), forward, alone
        )
        return found

    def _tell(self, reason: str) -> None:
        if reason not in self._told:
            self._told.add(reason)
            _log.warning("some pairs are scored one by one, not packed: %s", reason)
