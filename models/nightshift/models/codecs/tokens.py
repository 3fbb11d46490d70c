"""The visual tokens of a picture, as a model's vision tower and merger left them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nightshift.scoring.codecs import Grid

__all__ = ["VisualTokens"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VisualTokens:
    """What a language model is shown in place of a picture."""

    #: float32 (n, width), whatever the model's precision: each of its types fits exactly. Features
    #: for deeper layers stand behind the first ones, where a family has them.
    values: NDArray[np.float32]
    #: Patches in time, height and width of the whole picture, before they are merged.
    patches: Grid
    #: Tokens of the whole picture.
    n_whole: int
    #: Places, ascending, of the tokens that are still there; None where all are.
    kept: NDArray[np.int64] | None = None
