"""Images as visual tokens: stored, or still to go through a codec."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nightshift.models.inputs.codecs.codec import Codec
from nightshift.models.inputs.images import PreparedImage
from nightshift.scoring.codecs import Grid

__all__ = ["CodedImage", "StoredVisualTokens"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredVisualTokens:
    """Visual tokens that a language model is shown in place of an image's pixels."""

    #: float32 (n, width), whatever the model's precision: each of its types fits exactly. Features
    #: for deeper layers stand behind the first ones, where a family has them.
    values: NDArray[np.float32]
    #: How many features for deeper layers a token has.
    n_deepstack: int
    #: The image's shape, as its family counts it.
    grid: tuple[int, ...]
    #: Visual tokens of the whole image, row by row; all in time where the family has tiles.
    tokens: Grid
    #: What stands for the whole image in a prompt: ids of control tokens, and text.
    prompt_parts: tuple[int | str, ...]
    #: Places, ascending, of the tokens that are still there; None where all are.
    kept: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CodedImage:
    """An image whose visual tokens are shown as a codec leaves them."""

    image: Image.Image | PreparedImage
    codec: Codec
