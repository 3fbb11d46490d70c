"""The interface of embedders: prepare on the CPU, ahead and in threads, then embed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nightshift.models.inputs.content import ItemContent
from nightshift.models.inputs.images import PreparedImage
from nightshift.schema.errors import InputError
from nightshift.scoring.prompts import Side

__all__ = [
    "EmbeddedContents",
    "Embedder",
    "Notice",
    "PreparedContents",
    "refuse_broken",
    "refuse_empty",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A remark on one content that was embedded all the same."""

    #: Place in the batch.
    position: int
    #: A short stable code, such as `text_truncated`.
    reason: str
    detail: str


class PreparedContents(Protocol):
    """A batch, tokenised and preprocessed, in host memory; each embedder has its own kind."""

    @property
    def n_contents(self) -> int:
        """The number of contents."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedContents:
    """The embeddings of a batch."""

    #: float32 (n, dim), L2-normalised.
    vectors: NDArray[np.float32]
    notices: tuple[Notice, ...]


class Embedder(Protocol):
    """Turns texts, images, or both into one unit vector each."""

    @property
    def fingerprint(self) -> str:
        """Names weights, configuration, preprocessing, precision, mixing and truncation."""
        ...

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        ...

    def prepare_image(self, image: Image.Image) -> PreparedImage:
        """Preprocess one image for this embedder's `prepare`, on the CPU; any thread may call it.

        Raises:
            InputError: It cannot be resized.
        """
        ...

    def prepare(self, contents: Sequence[ItemContent], side: Side) -> PreparedContents:
        """Tokenise texts and preprocess images, on the CPU; any thread may call it.

        Args:
            contents: The contents to embed.
            side: Queries and candidates have their own mixing weights and prompts (§1.6, §3.1).

        Raises:
            InputError: A content is empty; `subject_id` is its place in the batch.
        """
        ...

    def embed(self, prepared: PreparedContents) -> EmbeddedContents:
        """Run the model.

        Args:
            prepared: Of this embedder's own `prepare`.

        Raises:
            InputError: An embedding is zero or not finite; `subject_id` is its place in the batch.
        """
        ...


def refuse_empty(contents: Sequence[ItemContent]) -> None:
    """Refuse contents without anything to embed.

    Raises:
        InputError: There is one; `subject_id` is its place.
    """
    for position, content in enumerate(contents):
        if not (content.texts or content.n_images):
            raise InputError(
                f"content {position} has neither text nor image to embed",
                "empty_content",
                str(position),
            )


def refuse_broken(vectors: NDArray[np.float32]) -> None:
    """Refuse vectors that have no direction: zero, which normalises to NaN, or not finite.

    Args:
        vectors: float32 (n, dim).

    Raises:
        InputError: There is one; `subject_id` is its place.
    """
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(broken):
        raise InputError(
            f"the embedding of content {broken[0]} is zero or not finite: look at the image, or "
            "try the model in float32",
            "embedding_not_finite",
            str(broken[0]),
        )
