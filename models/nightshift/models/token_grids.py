"""How many visual tokens pictures have, known without any weights."""

from collections.abc import Sequence

from PIL import Image

from nightshift.models.inputs.content import ItemContent
from nightshift.models.load import load_family
from nightshift.models.vision import bind
from nightshift.schema.models import ModelFacts
from nightshift.scoring.codecs import Grid

__all__ = ["token_grids"]


def token_grids(facts: ModelFacts, images: Sequence[Image.Image]) -> list[Grid]:
    """Visual tokens of pictures in time, rows and columns; no weights are loaded.

    Raises:
        InputError: A picture cannot be resized within the limits.
        ModelError: The model's files cannot be read.
    """
    # On this device tensors have shapes, but no numbers.
    tower = bind(load_family(facts, device="meta"), facts)
    return tower.grids(ItemContent(images=tuple(images)))
