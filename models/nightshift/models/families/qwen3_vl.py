"""Qwen3-VL by transformers: features of the vision tower's depth go to the first layers."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Qwen3VLForConditionalGeneration

from nightshift.models.checkpoints.loading import load_pretrained
from nightshift.models.engine.family import EmbeddedPrompts, PromptImage, VisualTokens
from nightshift.models.families.qwen2_vl import QwenVL, patch_conv_as_linear
from nightshift.schema.models import ModelFacts

__all__ = ["Qwen3VL", "load"]


def load(facts: ModelFacts, device: torch.device) -> "Qwen3VL":
    """Load the model; see `load_pretrained`."""
    model, processor, name = load_pretrained(Qwen3VLForConditionalGeneration, facts, device)
    return Qwen3VL(patch_conv_as_linear(model), processor, name)


class Qwen3VL(QwenVL):
    """A `Family`."""

    def encode_images(self, images: Sequence[PromptImage]) -> list[VisualTokens]:
        """See `Family`."""
        features = self._image_features(images)
        by_image = zip(features.pooler_output, *features.deepstack_features, strict=True)
        return [VisualTokens(tokens=tokens, deepstack=tuple(deep)) for tokens, *deep in by_image]

    def _n_deepstack(self) -> int:
        return len(self._model.config.vision_config.deepstack_visual_indexes)

    def _decoding(self, embedded: EmbeddedPrompts) -> dict[str, Any]:
        return {
            **super()._decoding(embedded),
            "visual_pos_masks": embedded.visual,
            "deepstack_visual_embeds": [torch.cat(rows) for rows in embedded.deepstack],
        }
