"""Mix the features of a text tower and an image tower into one unit vector a content (§1.6)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from nightshift.models.embedders.protocol import (
    EmbeddedContents,
    Notice,
    PreparedContents,
    refuse_broken,
    refuse_empty,
)
from nightshift.models.inputs.content import ItemContent
from nightshift.models.inputs.images import PreparedImage, not_resized, rgb
from nightshift.schema.errors import ModelError
from nightshift.schema.models import ModelFacts
from nightshift.scoring.mixing import mix_item, mix_query, normalise, pool
from nightshift.scoring.prompts import Side

__all__ = ["DualEncoder", "TokenizedTexts", "Towers"]

_P = TypeVar("_P")
Features = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizedTexts(Generic[_P]):
    """Texts as token ids, cut to the context of one text tower."""

    inputs: _P
    #: Number of tokens of each text before it was cut.
    lengths: tuple[int, ...]


class Towers(Protocol[_P]):
    """A text and an image tower of some library; `prepare_*` run on the CPU and in any thread."""

    def prepare_texts(self, texts: Sequence[str]) -> TokenizedTexts[_P]:
        """Tokenise at least one text; nothing in it is read as a special token."""
        ...

    def prepare_image(self, image: Image.Image) -> _P:
        """Resize and normalise one RGB image."""
        ...

    def join_images(self, images: Sequence[_P]) -> _P:
        """Stack prepared images, at least one, into a batch."""
        ...

    def encode_texts(self, inputs: _P) -> Tensor:
        """Features (n, dim), not normalised."""
        ...

    def encode_images(self, inputs: _P) -> Tensor:
        """Features (n, dim), not normalised."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _PreparedImage(PreparedImage, Generic[_P]):
    inputs: _P


@dataclass(frozen=True, slots=True, kw_only=True)
class _TowerBatch(Generic[_P]):
    n_contents: int
    side: Side
    texts: TokenizedTexts[_P] | None
    images: _P | None
    #: Content of each text and of each image, in order.
    text_owners: tuple[int, ...]
    image_owners: tuple[int, ...]


class DualEncoder(Generic[_P]):
    """An `Embedder` over two towers.

    Args:
        towers: The model.
        facts: As `describe_embedder` named it.
    """

    def __init__(self, towers: Towers[_P], facts: ModelFacts) -> None:
        self._towers = towers
        self.fingerprint = facts.fingerprint
        self.dim = facts.dim
        self._context_length = int(facts.card["context_length"])
        self._spec = facts.spec

    def prepare_image(self, image: Image.Image) -> PreparedImage:
        """See `Embedder.prepare_image`."""
        try:
            return _PreparedImage(inputs=self._towers.prepare_image(rgb(image)))
        except ValueError as error:
            raise not_resized(image, error) from error

    def prepare(self, contents: Sequence[ItemContent], side: Side) -> PreparedContents:
        """See `Embedder.prepare`."""
        refuse_empty(contents)
        texts = [(i, text) for i, content in enumerate(contents) for text in content.texts]
        images = [(i, image) for i, content in enumerate(contents) for image in content.images]
        inputs = [self._inputs(image) for _, image in images]
        return _TowerBatch(
            n_contents=len(contents),
            side=side,
            texts=self._towers.prepare_texts([text for _, text in texts]) if texts else None,
            images=self._towers.join_images(inputs) if inputs else None,
            text_owners=tuple(i for i, _ in texts),
            image_owners=tuple(i for i, _ in images),
        )

    @torch.inference_mode()
    def embed(self, prepared: PreparedContents) -> EmbeddedContents:
        """See `Embedder.embed`."""
        assert isinstance(prepared, _TowerBatch)
        batch: _TowerBatch[_P] = prepared
        texts = self._features(
            self._towers.encode_texts(batch.texts.inputs) if batch.texts else None
        )
        images = self._features(
            self._towers.encode_images(batch.images) if batch.images is not None else None
        )
        vectors = np.empty((batch.n_contents, self.dim), np.float32)
        for position in range(batch.n_contents):
            of_text = texts[[owner == position for owner in batch.text_owners]]
            of_image = images[[owner == position for owner in batch.image_owners]]
            vectors[position] = _combine(of_image, of_text, batch.side)
        refuse_broken(vectors)
        return EmbeddedContents(vectors=vectors, notices=self._notices(batch))

    def _inputs(self, image: Image.Image | PreparedImage) -> _P:
        prepared = self.prepare_image(image) if isinstance(image, Image.Image) else image
        assert isinstance(prepared, _PreparedImage)
        inputs: _P = prepared.inputs
        return inputs

    def _features(self, features: Tensor | None) -> Features:
        if features is None:
            return np.empty((0, self.dim), np.float32)
        if features.shape[1] != self.dim:
            raise ModelError(
                f"{self._spec} gives embeddings of length {features.shape[1]}, though its "
                f"configuration says {self.dim}",
                self._spec,
            )
        array: Features = features.float().cpu().numpy()
        return array

    def _notices(self, batch: _TowerBatch[_P]) -> tuple[Notice, ...]:
        if batch.texts is None:
            return ()
        return tuple(
            Notice(
                position=owner,
                reason="text_truncated",
                detail=f"{length} tokens, of which the model reads {self._context_length}",
            )
            for owner, length in zip(batch.text_owners, batch.texts.lengths, strict=True)
            if length > self._context_length
        )


def _combine(images: Features, texts: Features, side: Side) -> Features:
    if not len(texts):
        return normalise(pool(images))
    if not len(images):
        return normalise(pool(texts))
    mix = mix_query if side == "query" else mix_item
    return mix(pool(images), pool(texts))
