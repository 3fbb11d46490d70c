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

    Without tiles an image is shown as the model shows each of several in one prompt.
    """

    image_handling = "an overview, and tiles from --max-pixels of three tiles on"

    def _features(self, pixels: Tensor, images: Sequence[PromptImage]) -> Tensor:
        features: list[Tensor] = []
        start = 0
        for tiled, run in groupby(images, key=lambda image: len(image.pixels) > 1):
            some = list(run)
            stop = start + sum(len(image.pixels) for image in some)
            output = self._model.get_image_features(
                pixels[start:stop],
                image_sizes=torch.tensor([image.grid for image in some]),
                # Of one prompt that shows more than one: no tiles are expected.
                batch_num_images=[1] * len(some) if tiled else [len(some) + 1],
            )
            features += output.pooler_output
            start = stop
        return torch.cat(features)

    def _prepare(self, image: Image.Image, limits: PixelLimits) -> PromptImage:
        side = self._images.size["height"]
        max_n_tiles = max_tiles(limits, side**2, self._processor.num_image_tokens)
        if max_n_tiles < _LEAST_TILES:
            # Only beside another is an image shown without tiles.
            processed = self._images([[image, Image.new("RGB", (1, 1))]], return_tensors="pt")
        else:
            processed = self._images(
                [[self._shrunk(image, max_n_tiles - 1, side)]], return_tensors="pt"
            )
        height, width = processed["image_sizes"][0].tolist()
        return self._prompt_image(processed["pixel_values"][0], (height, width), processed)

    def _shrunk(self, image: Image.Image, max_n_tiles: int, side: int) -> Image.Image:
        """Small enough that the model's own choice of a grid has at most so many tiles."""
        grids = self._images.image_grid_pinpoints
        height, width = select_best_resolution((image.height, image.width), grids)
        if height * width <= max_n_tiles * side**2:
            return image
        grids = [grid for grid in grids if grid[0] * grid[1] <= max_n_tiles * side**2]
        height, width = select_best_resolution((image.height, image.width), grids)
        # It chooses the smallest grid that holds all of an image.
        scale = min(height / image.height, width / image.width, 1)
        size = max(1, int(image.width * scale)), max(1, int(image.height * scale))
        return image.resize(size, Image.Resampling.BICUBIC)
