"""Tokenised prompts in groups that share their beginnings, and their embedding."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from nightshift.models.engine.family import (
    EmbeddedPrompts,
    Family,
    PromptImage,
    VisualTokens,
)
from nightshift.models.engine.protocol import Reading
from nightshift.scoring.constant_scores import refuse_equal_values

__all__ = ["Part", "PreparedPrompts", "Prompt", "PromptGroup", "embed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A prefix that some prompts share, or the suffix of one prompt."""

    #: `group`, or `group/suffix`.
    name: str
    #: int64 (length,).
    ids: Tensor
    #: int64 (axes, length): positions in the complete prompt.
    positions: Tensor
    #: Indices into the list of distinct images, in reading order.
    images: tuple[int, ...]
    #: Those of `images` whose tokens the enhancement blends in.
    memory: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One complete prompt."""

    #: `group/suffix`.
    name: str
    #: int64 (length,).
    ids: Tensor
    #: int64 (axes, length).
    positions: Tensor
    #: Indices into the list of distinct images, in reading order.
    images: tuple[int, ...]
    #: Those of `images` whose tokens the enhancement blends in.
    memory: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptGroup:
    """Prompts that share their beginning."""

    prefix: Part
    suffixes: tuple[Part, ...]

    def prompts(self) -> Iterator[Prompt]:
        """Yield each prompt complete, prefix and suffix joined."""
        for suffix in self.suffixes:
            yield Prompt(
                name=suffix.name,
                ids=torch.cat([self.prefix.ids, suffix.ids]),
                positions=torch.cat([self.prefix.positions, suffix.positions], dim=1),
                images=self.prefix.images + suffix.images,
                memory=self.prefix.memory + suffix.memory,
            )


@dataclass(frozen=True, kw_only=True)
class PreparedPrompts:
    """Groups of tokenised prompts and their images, in host memory."""

    #: Distinct: an image that several prompts show is here once.
    images: list[PromptImage]
    groups: list[PromptGroup]

    @property
    def n_suffixes(self) -> int:
        """The number of prompts."""
        return sum(len(group.suffixes) for group in self.groups)

    @cached_property
    def prompts(self) -> list[Prompt]:
        """All prompts complete, group after group."""
        return [prompt for group in self.groups for prompt in group.prompts()]

    def in_order(self, readings: Mapping[str, Reading]) -> list[tuple[Reading, ...]]:
        """Put readings by name into the order of groups and suffixes.

        Raises:
            ModelError: Eight or more distinct prompts all have the same logits.
        """
        self.refuse_equal([reading.label_logits.tobytes() for reading in readings.values()])
        return [tuple(readings[suffix.name] for suffix in group.suffixes) for group in self.groups]

    def refuse_equal(self, logits: Collection[object]) -> None:
        """Refuse logits that are the same for many distinct prompts.

        Args:
            logits: One value a prompt that its logits determine.

        Raises:
            ModelError: Eight or more distinct prompts all have the same logits.
        """
        refuse_equal_values(logits, self._n_distinct(), "distinct pairs all have the same logits")

    def _n_distinct(self) -> int:
        return len({(tuple(prompt.ids.tolist()), prompt.images) for prompt in self.prompts})


def embed(
    family: Family, parts: Sequence[Part | Prompt], visual_tokens: Sequence[VisualTokens]
) -> EmbeddedPrompts:
    """Embed parts of prompts, or complete ones: token embeddings with visual tokens in place.

    Args:
        family: The loaded model.
        parts: Padded to the longest.
        visual_tokens: Of the distinct images.
    """
    ids = pad_sequence([part.ids for part in parts], batch_first=True)
    positions = pad_sequence([part.positions.T for part in parts], batch_first=True)
    states = family.embed(ids)
    visual = family.is_visual(ids).to(states.device)
    of_parts = [[visual_tokens[i] for i in part.images] for part in parts]
    if any(of_parts):
        tokens = torch.cat([image.tokens for images in of_parts for image in images])
        states[visual] = tokens.to(states.dtype)
    n_deepstack = max((len(image.deepstack) for images in of_parts for image in images), default=0)
    return EmbeddedPrompts(
        states=states,
        positions=positions.permute(2, 0, 1),
        visual=visual,
        deepstack=tuple(
            tuple(
                torch.cat([states[0, :0], *(image.deepstack[layer] for image in images)])
                for images in of_parts
            )
            for layer in range(n_deepstack)
        ),
    )
