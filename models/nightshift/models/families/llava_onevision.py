"""LLaVA-OneVision by transformers."""

from collections.abc import Sequence
from itertools import groupby

import torch
from PIL import Image
from torch import Tensor
from transformers import LlavaOnevisionForConditionalGeneration
from transformers.image_processing_utils import select_best_resolution

from nightshift.models.checkpoints.loading import load_pretrained
from nightshift.models.engine.family import PixelLimits, PromptImage
from nightshift.models.families._base import Pretrained, max_tiles
from nightshift.schema.models import ModelFacts

__all__ = ["LlavaOnevision", "load"]

# The smallest grid that shows more than the overview does, and the overview.
_LEAST_TILES = 3


def load(facts: ModelFacts, device: torch.device) -> "LlavaOnevision":
    """Load the model; see `load_pretrained`."""
    return LlavaOnevision(*load_pretrained(LlavaOnevisionForConditionalGeneration, facts, device))


class LlavaOnevision(Pretrained):
    """A `Family`: an overview, and tiles where the limits allow them.

    Without tiles a picture is shown as the model shows each of several in one prompt.
    """

    pictures = "an overview, and tiles from --max-pixels of three tiles on"

    def _features(self, pixels: Tensor, pictures: Sequence[PromptImage]) -> Tensor:
        found: list[Tensor] = []
        start = 0
        for tiled, run in groupby(pictures, key=lambda one: len(one.pixels) > 1):
            some = list(run)
            stop = start + sum(len(picture.pixels) for picture in some)
            output = self._model.get_image_features(
                pixels[start:stop],
                image_sizes=torch.tensor([picture.grid for picture in some]),
                # Of one prompt that shows more than one: no tiles are expected.
                batch_num_images=[1] * len(some) if tiled else [len(some) + 1],
            )
            found += output.pooler_output
            start = stop
        return torch.cat(found)

    def _prepare(self, image: Image.Image, limits: PixelLimits) -> PromptImage:
        side = self._images.size["height"]
        most = max_tiles(limits, side**2, self._processor.num_image_tokens)
        if most < _LEAST_TILES:
            # Only beside another is a picture shown without tiles.
            found = self._images([[image, Image.new("RGB", (1, 1))]], return_tensors="pt")
        else:
            found = self._images([[self._shrunk(image, most - 1, side)]], return_tensors="pt")
        height, width = found["image_sizes"][0].tolist()
        return self._prompt_image(found["pixel_values"][0], (height, width), found)

    def _shrunk(self, image: Image.Image, most: int, side: int) -> Image.Image:
        """Small enough that the model's own choice of a grid has so many tiles at the most."""
        grids = self._images.image_grid_pinpoints
        height, width = select_best_resolution((image.height, image.width), grids)
        if height * width <= most * side**2:
            return image
        grids = [grid for grid in grids if grid[0] * grid[1] <= most * side**2]
        height, width = select_best_resolution((image.height, image.width), grids)
        # It chooses the smallest grid that holds all of a picture.
        scale = min(height / image.height, width / image.width, 1)
        size = max(1, int(image.width * scale)), max(1, int(image.height * scale))
        return image.resize(size, Image.Resampling.BICUBIC)
