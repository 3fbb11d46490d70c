"""The types of the scoring engine: what it is asked, and what it reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nightshift.models.inputs.codecs.tokens import CodedImage, StoredVisualTokens
from nightshift.models.inputs.images import PreparedImage
from nightshift.schema.params import EnhancementParams
from nightshift.scoring.prompts import Labels, Numbers

__all__ = ["Engine", "Group", "Piece", "PreparedGroups", "Reading", "Trace"]


#: A part of a prompt: text (never read for special tokens), or an image.
Piece = str | Image.Image | PreparedImage | StoredVisualTokens | CodedImage


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One shared beginning of a prompt, and its endings."""

    prefix: tuple[Piece, ...]
    suffixes: tuple[tuple[Piece, ...], ...]
    #: Whether the enhancement looks again at the images of the beginning, and of the endings.
    remembered: tuple[bool, bool] = (True, True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The effect of the visual enhancement on one prompt."""

    fired: bool
    #: The layer whose state decided; the memory enters the feed-forward of the next one.
    layer: int | None
    #: Of that layer, 0 to 1; of the most uncertain one looked at where nothing fired.
    uncertainty: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The model's output at the end of one prompt; every number is finite."""

    #: float32 (n_labels,), raw.
    label_logits: NDArray[np.float32]
    #: Over the whole vocabulary.
    logsumexp: float
    #: Nats, over the whole vocabulary.
    entropy: float
    trace: Trace


class PreparedGroups(Protocol):
    """Groups, tokenised and preprocessed, in host memory; each engine has its own kind."""

    @property
    def n_suffixes(self) -> int:
        """Number of prompts."""
        ...


class Engine(Protocol):
    """Reads label logits at the end of prompts that share beginnings."""

    def prepare_image(self, image: Image.Image) -> PreparedImage:
        """Preprocess one image for this engine's `prepare`, on the CPU; any thread may call it.

        Raises:
            InputError: It cannot be resized within the limits.
        """
        ...

    def prepare(self, groups: Sequence[Group]) -> PreparedGroups:
        """Tokenise and preprocess, on the CPU; any thread may call it.

        Raises:
            InputError: A prompt is longer than the model reads, or an image cannot be resized.
        """
        ...

    def score(
        self, prepared: PreparedGroups, *, labels: Labels | Numbers, enhancement: EnhancementParams
    ) -> list[tuple[Reading, ...]]:
        """One reading for each suffix, in order; independent of what else is in the batch.

        Raises:
            InputError: A reading is not finite; `subject_id` is `group/suffix`.
        """
        ...
