"""The token of a prompt that stands for a piece of an image.

A family declares none: the configuration of the checkpoint gives the id (`image_token_id`), and its
processor gives the text. A family that has several overrides `is_visual` of `_base.Pretrained`.
"""

from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from nightshift.models.engine.text import PromptParts

__all__ = ["ImageToken"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageToken:
    """The token that a prompt has once for each visual token, to be overwritten by it."""

    id: int
    #: As the processor writes it.
    text: str

    @classmethod
    def of(cls, model: Any, processor: Any) -> Self:  # noqa: ANN401 - transformers' own types
        """The image token of a checkpoint of transformers."""
        return cls(id=int(model.config.image_token_id), text=str(processor.image_token))

    def is_at(self, ids: Tensor) -> Tensor:
        """Bool, of the shape of `ids`: where the token stands."""
        return ids == self.id

    def count(self, parts: PromptParts) -> int:
        """Count the places of the token in a prompt."""
        return parts.count(self.id)
