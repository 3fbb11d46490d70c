"""Idefics3 by transformers."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import Idefics3ForConditionalGeneration

from nightshift.models.checkpoints.loading import load_pretrained
from nightshift.models.engine.family import PixelLimits, PromptImage
from nightshift.models.families._base import Pretrained, max_tiles
from nightshift.schema.models import ModelFacts

__all__ = ["Idefics3", "load"]


def load(facts: ModelFacts, device: torch.device) -> "Idefics3":
    """Load the model; see `load_pretrained`."""
    return Idefics3(*load_pretrained(Idefics3ForConditionalGeneration, facts, device))


class Idefics3(Pretrained):
    """A `Family`: images enlarged to whole tiles, and an overview."""

    image_handling = "cut into tiles, with an overview"

    def _language(self, model: Any) -> Any:  # noqa: ANN401 - transformers' own type
        return model.model.text_model

    def _features(self, pixels: Tensor, images: Sequence[PromptImage]) -> Tensor:  # noqa: ARG002
        features: list[Tensor] = self._model.get_image_features(pixels[None]).pooler_output
        return torch.cat(features)

    def _prepare(self, image: Image.Image, limits: PixelLimits) -> PromptImage:
        side = self._images.max_image_size["longest_edge"]
        max_n_tiles = max_tiles(limits, side**2, self._processor.image_seq_len)
        # The longest edge is so many tiles: as many as there may be, in the end one.
        for edge in range(max(1, self._images.size["longest_edge"] // side), 0, -1):
            processed = self._images(
                images=[[image]],
                size={"longest_edge": edge * side},
                return_row_col_info=True,
                return_tensors="pt",
            )
            pixels = processed["pixel_values"][0]
            if len(pixels) <= max_n_tiles:
                break
        return self._prompt_image(pixels, (len(pixels),), processed)
