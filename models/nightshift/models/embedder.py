"""What every embedder offers: prepare on the CPU, ahead and in threads, then embed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from nightshift.models.content import ItemContent

__all__ = ["Embedded", "Embedder", "Notice", "Prepared", "Role"]

Role = Literal["query", "item"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something about one content that is worth a record though it was embedded."""

    #: Place in the batch.
    position: int
    #: A short stable code, such as `text_truncated`.
    reason: str
    detail: str


class Prepared(Protocol):
    """A batch, tokenised and preprocessed, in host memory; each embedder has its own kind."""

    @property
    def n_contents(self) -> int:
        """How many contents it holds."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """The embeddings of a batch."""

    #: float32 (n, dim), L2-normalised.
    vectors: NDArray[np.float32]
    notices: tuple[Notice, ...]


class Embedder(Protocol):
    """Turns texts, images, or both into one unit vector each."""

    @property
    def fingerprint(self) -> str:
        """Weights, configuration, preprocessing, precision, mixing and truncation, in one name."""
        ...

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        ...

    def prepare(self, contents: Sequence[ItemContent]) -> Prepared:
        """Tokenise texts and preprocess images, on the CPU; any thread may call it.

        Raises:
            InputError: A content is empty; `subject_id` is its place in the batch.
        """
        ...

    def embed(self, prepared: Prepared, role: Role) -> Embedded:
        """Run the model.

        Args:
            prepared: Of this embedder's own `prepare`.
            role: Text and image of a query are mixed otherwise than those of an item (§1.6).

        Raises:
            InputError: An embedding is zero or not finite; `subject_id` is its place in the batch.
        """
        ...
