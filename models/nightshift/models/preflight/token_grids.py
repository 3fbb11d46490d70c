"""Count the visual tokens of images, without any weights."""

from collections.abc import Sequence

from PIL import Image

from nightshift.models.load import bind_vision, load_family
from nightshift.schema.models import ModelFacts
from nightshift.scoring.codecs import Grid

__all__ = ["token_grids"]


def token_grids(facts: ModelFacts, images: Sequence[Image.Image]) -> list[Grid]:
    """Count the visual tokens of images in time, rows and columns; no weights are loaded.

    Raises:
        InputError: An image cannot be resized within the limits.
        ModelError: The model's files cannot be read, or torch is not installed.
    """
    # On this device tensors have shapes, but no numbers.
    tower = bind_vision(load_family(facts, device="meta"), facts)
    return tower.grids(images)
