"""FreeRet's embedder (methods §3.1): the state from which a multimodal LLM would write one word."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from nightshift.models.embedders.protocol import (
    EmbeddedContents,
    PreparedContents,
    refuse_broken,
    refuse_empty,
)
from nightshift.models.engine.family import Family, PixelLimits, PromptImage
from nightshift.models.engine.hidden_states import HiddenStates
from nightshift.models.engine.prompt_writer import prepare
from nightshift.models.engine.prompts import PreparedPrompts
from nightshift.models.engine.protocol import Group, Piece
from nightshift.models.engine.visual import encode_images, prepare_image
from nightshift.models.inputs.codecs.codec import Codec
from nightshift.models.inputs.content import ItemContent, images_for_prompt
from nightshift.schema.errors import InputError, ModelError
from nightshift.schema.models import ModelFacts
from nightshift.schema.params import EmbedderParams
from nightshift.schema.records import PartKind
from nightshift.scoring.methods.freeret_embedding import instruction
from nightshift.scoring.mixing import normalise
from nightshift.scoring.prompts import Side

__all__ = ["FreeRetEmbedder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _PromptBatch:
    prompts: PreparedPrompts

    @property
    def n_contents(self) -> int:
        return self.prompts.n_suffixes


class FreeRetEmbedder:
    """An `Embedder` over a loaded multimodal LLM.

    Args:
        family: The loaded model.
        params: Site, norm, prompt and task.
        facts: As `describe_embedder` named it.
        codec: That of the parameters; None where it loses nothing.

    Raises:
        ModelError: The model has no state at the site, or the codec is not given.
    """

    def __init__(
        self,
        family: Family,
        params: EmbedderParams,
        facts: ModelFacts,
        codec: Codec | None = None,
    ) -> None:
        if params.codec != "none" and codec is None:
            raise ModelError(
                f"{facts.spec} is shown items through the codec of a catalogue's visual tokens: "
                "embed with `nightshift index build`",
                facts.spec,
            )
        self.fingerprint = facts.fingerprint
        self.dim = facts.dim
        self._family = family
        self._params = params
        self._codec = codec
        self._limits = PixelLimits(min_pixels=params.min_pixels, max_pixels=params.max_pixels)
        self._states = HiddenStates(family, params.site, params.norm)

    def prepare_image(self, image: Image.Image) -> PromptImage:
        """See `Embedder.prepare_image`."""
        return prepare_image(self._family, image, self._limits)

    def prepare(self, contents: Sequence[ItemContent], side: Side) -> PreparedContents:
        """See `Embedder.prepare`."""
        refuse_empty(contents)
        groups = [Group(prefix=(), suffixes=(self._pieces(content, side),)) for content in contents]
        try:
            return _PromptBatch(prompts=prepare(self._family, self._limits, groups))
        except InputError as error:
            raise _of_content(error) from error

    @torch.inference_mode()
    def embed(self, prepared: PreparedContents) -> EmbeddedContents:
        """See `Embedder.embed`."""
        assert isinstance(prepared, _PromptBatch)
        images = encode_images(self._family, prepared.prompts.images)
        try:
            states = self._states.read(prepared.prompts.prompts, images)
        except InputError as error:
            raise _of_content(error) from error
        vectors = normalise(states.numpy())
        refuse_broken(vectors)
        return EmbeddedContents(vectors=vectors, notices=())

    def _pieces(self, content: ItemContent, side: Side) -> tuple[Piece, ...]:
        """Images, texts, then the instruction."""
        kinds: set[PartKind] = set()
        if content.texts:
            kinds.add("text")
        if content.n_images:
            kinds.add("image")
        request = instruction(self._params, side, frozenset(kinds))
        images = images_for_prompt(content, self._codec if side == "candidate" else None)
        return (*images, "\n".join(content.texts) + request)


def _of_content(error: InputError) -> InputError:
    # One prompt a content: `group/suffix` is `content/0`.
    place = str(error.subject_id).partition("/")[0]
    return InputError(error.message, error.reason, place)
