"""InternVL by transformers, as its checkpoints `…-hf` have it."""

import torch
from PIL import Image
from transformers import InternVLForConditionalGeneration

from nightshift.models.checkpoints.loading import load_pretrained
from nightshift.models.engine.family import PixelLimits, PromptImage
from nightshift.models.families._base import Pretrained, max_tiles
from nightshift.schema.models import ModelFacts

__all__ = ["InternVL", "load"]


def load(facts: ModelFacts, device: torch.device) -> "InternVL":
    """Load the model; see `load_pretrained`."""
    return InternVL(*load_pretrained(InternVLForConditionalGeneration, facts, device))


class InternVL(Pretrained):
    """A `Family`: the tiling nearest to an image's aspect ratio, and an overview."""

    image_handling = "cut into tiles, with an overview"

    def _prepare(self, image: Image.Image, limits: PixelLimits) -> PromptImage:
        size, of_model = self._images.size, self._images.max_patches
        n_max = max_tiles(limits, size["height"] * size["width"], self._processor.image_seq_length)
        # More than one tile bring an overview with them.
        n_max = max(1, n_max - 1 if limits.max_pixels else min(of_model, n_max - 1))
        processed = self._images(
            images=[image],
            crop_to_patches=True,
            min_patches=min(self._images.min_patches, n_max),
            max_patches=n_max,
            return_tensors="pt",
        )
        pixels = processed["pixel_values"]
        return self._prompt_image(pixels, (len(pixels),), processed)
