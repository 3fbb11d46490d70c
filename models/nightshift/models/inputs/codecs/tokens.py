"""Pictures without their pixels: as a vision tower left them, or still to be coded."""

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
    """What a language model is shown in place of a picture's pixels."""

    #: float32 (n, width), whatever the model's precision: each of its types fits exactly. Features
    #: for deeper layers stand behind the first ones, where a family has them.
    values: NDArray[np.float32]
    #: How many features for deeper layers a token has.
    n_deepstack: int
    #: The picture's shape, as its family counts it.
    grid: tuple[int, ...]
    #: Visual tokens of the whole picture, row by row; all in time where the family has tiles.
    tokens: Grid
    #: What stands for the whole picture in a prompt: ids of control tokens, and text.
    written: tuple[int | str, ...]
    #: Places, ascending, of the tokens that are still there; None where all are.
    kept: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CodedImage:
    """A picture whose visual tokens are shown as a codec leaves them."""

    image: Image.Image | PreparedImage
    codec: Codec
