"""The vision tower of a multimodal LLM: images in, visual tokens to store out."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from nightshift.models.engine.family import Family, PixelLimits, PromptImage
from nightshift.models.engine.visual import encode_images, prepare_image, to_stored, token_grid
from nightshift.models.inputs.codecs.tokens import StoredVisualTokens
from nightshift.models.inputs.content import ItemContent
from nightshift.schema.errors import ModelError
from nightshift.schema.models import ModelFacts
from nightshift.scoring.codecs import Grid

__all__ = ["PreparedImageBatch", "VisionTower", "bind"]


def bind(family: Family, facts: ModelFacts) -> "VisionTower":
    """The vision tower of a loaded model, within the limits that its card names."""
    limits = PixelLimits(
        min_pixels=facts.card["min_pixels"],
        max_pixels=facts.card["max_pixels"],
        long_side=facts.card.get("long_side"),
    )
    return VisionTower(family, limits, facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedImageBatch:
    """The images of some contents, preprocessed, in host memory."""

    images: list[PromptImage]
    #: Number of images of each content.
    counts: list[int]


class VisionTower:
    """Makes visual tokens, the same as a scorer of the same model makes for its prompts.

    Args:
        family: The loaded model.
        limits: Bounds on the pixels of an image.
        facts: Fingerprint, and the width of a token with all features for deeper layers.
    """

    def __init__(self, family: Family, limits: PixelLimits, facts: ModelFacts) -> None:
        self.fingerprint = facts.fingerprint
        self._family = family
        self._limits = limits
        self._facts = facts

    def prepare_image(self, image: Image.Image) -> PromptImage:
        """See `Engine.prepare_image`."""
        return prepare_image(self._family, image, self._limits)

    def prepare(self, contents: Sequence[ItemContent]) -> PreparedImageBatch:
        """Resize and normalise, on the CPU; any thread may call it.

        Raises:
            InputError: An image cannot be resized within the limits.
        """
        return PreparedImageBatch(
            images=[
                prepare_image(self._family, image, self._limits)
                for content in contents
                for image in content.images
            ],
            counts=[len(content.images) for content in contents],
        )

    def grids(self, images: Sequence[Image.Image]) -> list[Grid]:
        """Visual tokens of each image in time, rows and columns; raises as `prepare`."""
        return [token_grid(self.prepare_image(image)) for image in images]

    @torch.inference_mode()
    def encode(self, prepared: PreparedImageBatch) -> list[tuple[StoredVisualTokens, ...]]:
        """Compute the visual tokens of the images of each content, in order.

        Raises:
            ModelError: They are not as wide as the model's configuration says.
        """
        tokens_of_images = encode_images(self._family, prepared.images)
        stored = [
            to_stored(image, tokens)
            for image, tokens in zip(prepared.images, tokens_of_images, strict=True)
        ]
        for tokens in stored:
            if tokens.values.shape[1] != self._facts.dim:
                raise ModelError(
                    f"{self._facts.spec} makes visual tokens of {tokens.values.shape[1]} numbers, "
                    f"its configuration says {self._facts.dim}; this family's cannot be stored",
                    self._facts.spec,
                )
        remaining = iter(stored)
        return [tuple(next(remaining) for _ in range(count)) for count in prepared.counts]
