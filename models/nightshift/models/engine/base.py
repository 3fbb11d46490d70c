"""The part that both engines share: preparing prompts, encoding images, ordering readings."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from PIL import Image

from nightshift.models.engine.family import Family, PixelLimits, PromptImage, VisualTokens
from nightshift.models.engine.prompt_writer import prepare
from nightshift.models.engine.prompts import PreparedPrompts
from nightshift.models.engine.protocol import Group, PreparedGroups, Reading
from nightshift.models.engine.runtime.token_budget import TokenBudget
from nightshift.models.engine.visual import encode_images, prepare_image
from nightshift.schema.params import EnhancementParams
from nightshift.scoring.prompts import Labels, Numbers

__all__ = ["BaseEngine"]


class BaseEngine(ABC):
    """An `Engine`; a subclass says how prompts go through the decoder.

    Args:
        family: The loaded model.
        limits: Bounds on the pixels of an image.
        tokens_per_batch: Tokens of one forward at most; halved when device memory runs out.
    """

    def __init__(self, family: Family, limits: PixelLimits, *, tokens_per_batch: int) -> None:
        self._family = family
        self._limits = limits
        self._budget = TokenBudget(tokens_per_batch)

    def prepare_image(self, image: Image.Image) -> PromptImage:
        """See `Engine.prepare_image`."""
        return prepare_image(self._family, image, self._limits)

    def prepare(self, groups: Sequence[Group]) -> PreparedGroups:
        """See `Engine.prepare`."""
        return prepare(self._family, self._limits, groups)

    @torch.inference_mode()
    def score(
        self, prepared: PreparedGroups, *, labels: Labels | Numbers, enhancement: EnhancementParams
    ) -> list[tuple[Reading, ...]]:
        """See `Engine.score`."""
        assert isinstance(prepared, PreparedPrompts)
        label_ids = [self._family.text.label(word) for word in labels.words]
        visual_tokens = encode_images(self._family, prepared.images)
        readings = self._read_prepared(prepared, visual_tokens, label_ids, enhancement)
        return prepared.in_order(readings)

    @abstractmethod
    def _read_prepared(
        self,
        prepared: PreparedPrompts,
        visual_tokens: Sequence[VisualTokens],
        label_ids: list[int],
        enhancement: EnhancementParams,
    ) -> dict[str, Reading]:
        """Read all prompts.

        Args:
            prepared: The prompts.
            visual_tokens: Of each of `prepared.images`.
            label_ids: Tokens of the labels.
            enhancement: When and how the enhancement acts.

        Returns:
            Readings by place, `group/suffix`.
        """
