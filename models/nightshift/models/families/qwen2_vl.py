"""Qwen2-VL by transformers, and what its successors share with it."""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen2VLForConditionalGeneration

from nightshift.models.checkpoints.loading import load_pretrained
from nightshift.models.engine.family import (
    DEFAULT_MAX_PIXELS,
    EmbeddedPrompts,
    PixelLimits,
    PromptImage,
    VisualTokens,
)
from nightshift.models.families._base import Pretrained
from nightshift.schema.models import ModelFacts

__all__ = ["QwenVL", "load", "patch_conv_as_linear"]

_Model = TypeVar("_Model", bound=nn.Module)


def load(facts: ModelFacts, device: torch.device) -> "QwenVL":
    """Load the model; see `load_pretrained`."""
    model, processor, name = load_pretrained(Qwen2VLForConditionalGeneration, facts, device)
    return QwenVL(patch_conv_as_linear(model), processor, name)


def patch_conv_as_linear(model: _Model) -> _Model:
    """The same model, the convolution that embeds patches changed into the product that it is.

    Each patch comes cut out, so the convolution has one position; as such it takes half of a small
    vision tower's time on a CPU.
    """
    loosely: Any = model
    tower = loosely.model.visual
    tower.patch_embed = _PatchEmbedding(tower.patch_embed.proj)
    return model


class QwenVL(Pretrained):
    """A `Family`: images at their own resolution, rotary positions of three axes."""

    image_handling = "at their own resolution"
    no_codecs = ()

    def encode_images(self, images: Sequence[PromptImage]) -> list[VisualTokens]:
        """See `Family`."""
        return [
            VisualTokens(tokens=tokens) for tokens in self._image_features(images).pooler_output
        ]

    def positions(self, ids: Tensor, images: Sequence[PromptImage]) -> Tensor:
        """See `Family`: time, height and width of multimodal rotary positions."""
        if not images:
            return torch.arange(len(ids)).expand(3, -1)
        positions, _ = self._model.model.get_rope_index(
            ids[None],
            mm_token_type_ids=self.is_visual(ids)[None].int(),
            image_grid_thw=torch.tensor([image.grid for image in images]),
        )
        of_prompt: Tensor = positions[:, 0]
        return of_prompt

    def _image_features(self, images: Sequence[PromptImage]) -> Any:  # noqa: ANN401 - transformers' of_model type
        pixels = torch.cat([image.pixels for image in images]).to(self._model.device)
        grids = torch.tensor([image.grid for image in images], device=self._model.device)
        return self._model.get_image_features(pixels, grids)

    def _decoding(self, embedded: EmbeddedPrompts) -> dict[str, Any]:
        return {"position_ids": embedded.positions.to(self._model.device)}

    def _prepare(self, image: Image.Image, limits: PixelLimits) -> PromptImage:
        of_model = self._images.size
        max_pixels = limits.max_pixels or min(of_model["longest_edge"], DEFAULT_MAX_PIXELS)
        min_pixels = min(limits.min_pixels or of_model["shortest_edge"], max_pixels)
        size = {"shortest_edge": min_pixels, "longest_edge": max_pixels}
        processed = self._images(images=[image], size=size, return_tensors="pt")
        time, height, width = processed["image_grid_thw"][0].tolist()
        return self._prompt_image(processed["pixel_values"], (time, height, width), processed)


class _PatchEmbedding(nn.Module):
    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        self.weight = convolution.weight
        self.bias = convolution.bias

    def forward(self, patches: Tensor) -> Tensor:
        return functional.linear(patches.to(self.weight.dtype), self.weight.flatten(1), self.bias)
