"""Gemma 3 by transformers."""

from typing import Any

import torch
from PIL import Image
from transformers import Gemma3ForConditionalGeneration

from nightshift.models.checkpoints.loading import load_pretrained
from nightshift.models.engine.family import EmbeddedPrompts, PixelLimits, PromptImage
from nightshift.models.families._base import Pretrained
from nightshift.schema.models import ModelFacts

__all__ = ["Gemma3", "load"]


def load(facts: ModelFacts, device: torch.device) -> "Gemma3":
    """Load the model; see `load_pretrained`."""
    return Gemma3(*load_pretrained(Gemma3ForConditionalGeneration, facts, device, causal=False))


class Gemma3(Pretrained):
    """A `Family`: every image one square of one size."""

    image_handling = "one square of one size, whatever the pixel limits"
    unpacked_reason = "visual tokens look ahead, and most layers attend to a window only"

    def _decoding(self, embedded: EmbeddedPrompts) -> dict[str, Any]:
        masks = self._model.create_masks_for_generate(
            self._model.config,
            embedded.states,
            attention_mask=None,
            past_key_values=None,
            position_ids=None,
            token_type_ids=embedded.visual.int(),
        )
        return {"attention_mask": masks}

    def _prepare(self, image: Image.Image, limits: PixelLimits) -> PromptImage:  # noqa: ARG002
        processed = self._images(images=[image], do_pan_and_scan=False, return_tensors="pt")
        pixels = processed["pixel_values"]
        return self._prompt_image(pixels, (len(pixels),), processed)
