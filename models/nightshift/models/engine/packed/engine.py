"""The packed engine: the shared beginning of prompts once, their ends in blocks behind it.

All prompts of a batch go through the decoder side by side, layer after layer. A layer first
advances the prefixes, which attend to themselves; then the suffixes, in blocks: each attends to
the keys and values of its prefix and, causally, to itself. No mask grows with the number of
suffixes, and no keys or values outlive their layer. See `docs/decisions`, packed scoring.
"""

import logging
from collections.abc import Sequence

from nightshift.models.engine.base import BaseEngine
from nightshift.models.engine.enhancement import effective
from nightshift.models.engine.family import Family, LayerOps, PixelLimits, VisualTokens
from nightshift.models.engine.packed.batches import (
    batches,
    max_variants,
    single_prompt,
    unpacked_reason,
)
from nightshift.models.engine.packed.forward import PackedForward
from nightshift.models.engine.plain import PlainEngine
from nightshift.models.engine.prompts import PreparedPrompts, PromptGroup
from nightshift.models.engine.protocol import Reading
from nightshift.models.engine.readout import read_labels, readings_by_name
from nightshift.schema.params import EnhancementParams

__all__ = ["PackedEngine"]

_log = logging.getLogger(__name__)

# Prefixes and suffixes together.
_TOKENS_PER_BATCH = 32_768


class PackedEngine(BaseEngine):
    """An `Engine` that reads a shared prefix once.

    Prompts that it cannot pack with the same result go through the plain engine, with a warning.

    Args:
        family: The loaded model.
        layer_ops: The operations of its layers.
        limits: Bounds on the pixels of an image.
        tokens_per_batch: Tokens whose states one forward keeps at most.
        tokens_per_layer_step: Tokens that go through a layer at a time; by default as many as the
            device is fast with.
    """

    def __init__(
        self,
        family: Family,
        layer_ops: LayerOps,
        limits: PixelLimits,
        *,
        tokens_per_batch: int = _TOKENS_PER_BATCH,
        tokens_per_layer_step: int | None = None,
    ) -> None:
        super().__init__(family, limits, tokens_per_batch=tokens_per_batch)
        self._layer_ops = layer_ops
        self._tokens_per_layer_step = tokens_per_layer_step
        self._plain = PlainEngine(family, limits)
        self._warned: set[str] = set()

    def _read_prepared(
        self,
        prepared: PreparedPrompts,
        visual_tokens: Sequence[VisualTokens],
        label_ids: list[int],
        enhancement: EnhancementParams,
    ) -> dict[str, Reading]:
        enhancement = effective(enhancement)
        reason = unpacked_reason(enhancement)
        if reason is None and any(not len(group.prefix.ids) for group in prepared.groups):
            reason = "their first tokens differ"
        if reason:
            self._warn_once(reason)
            return self._plain.read(prepared.prompts, visual_tokens, label_ids, enhancement)
        return self._read_packed(prepared.groups, visual_tokens, label_ids, enhancement)

    def _read_packed(
        self,
        groups: Sequence[PromptGroup],
        visual_tokens: Sequence[VisualTokens],
        label_ids: list[int],
        enhancement: EnhancementParams,
    ) -> dict[str, Reading]:
        decoder = self._family.decoder
        readings: dict[str, Reading] = {}

        def forward(batch: list[PromptGroup]) -> None:
            packed = PackedForward(
                self._family,
                self._layer_ops,
                batch,
                visual_tokens,
                enhancement,
                tokens_per_layer_step=self._tokens_per_layer_step,
            )
            readouts = read_labels(decoder.head_weight, packed.run(), label_ids)
            readings.update(readings_by_name(packed.names, readouts, packed.traces()))
            self._family.counters.prefixes += len(batch)

        def variants(group: PromptGroup) -> int:
            return max_variants(group, enhancement, len(decoder.layers))

        self._budget.run(
            groups, lambda units, budget: batches(units, budget, variants), forward, single_prompt
        )
        return readings

    def _warn_once(self, reason: str) -> None:
        if reason not in self._warned:
            self._warned.add(reason)
            _log.warning("some pairs are scored one by one, not packed: %s", reason)
