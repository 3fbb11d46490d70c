"""The states of a packed forward: padded prefixes, and suffixes in blocks of similar length."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nightshift.models.engine.family import Family, LayerOps, Rotary, VisualTokens
from nightshift.models.engine.prompts import Part, PromptGroup, embed

__all__ = [
    "Block",
    "OrderedSuffix",
    "Prefixes",
    "embed_prefixes",
    "suffix_blocks",
    "take",
    "visibility",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderedSuffix:
    """A suffix in the order in which suffixes are cut into blocks."""

    #: Index of its group.
    group: int
    #: Tokens of the group's prefix.
    prefix_length: int
    part: Part


@dataclass(slots=True, kw_only=True)
class Prefixes:
    """Variants of the prefixes, one a row; at first one row for each group, longest first."""

    #: (rows, length, width), padded on the right.
    states: Tensor
    #: The group of each row.
    groups: list[int]
    #: Tokens, by group.
    lengths: list[int]
    #: By group.
    rotary: Rotary
    #: Bool (groups, length): where a visual token stands.
    visual: Tensor
    #: DeepStack features (visual tokens, width) to add to the first layers' outputs, by layer and
    #: group.
    deepstack: tuple[tuple[Tensor, ...], ...]

    def row_slices(self, tokens: int) -> Iterator[tuple[slice, list[int], int]]:
        """Cut the rows into slices of about so many tokens.

        Yields:
            A slice of rows, the group of each, and the longest of their lengths.
        """
        start = 0
        while start < len(self.groups):
            longest = max(self.lengths[group] for group in self.groups[start:])
            stop = start + max(1, tokens // longest)
            groups = self.groups[start:stop]
            yield slice(start, start + len(groups)), groups, max(self.lengths[g] for g in groups)
            start += len(groups)

    def add_deepstack(self, layer: int, groups: Sequence[int], states: Tensor) -> None:
        """Add the DeepStack features of a layer to its output (groups, length, width), in place."""
        if layer < len(self.deepstack):
            mask = self.visual[groups, : states.shape[1]]
            states[mask] += torch.cat([self.deepstack[layer][group] for group in groups])


@dataclass(slots=True, kw_only=True)
class Block:
    """Suffixes that go through each layer together."""

    #: Consecutive numbers of its prompts.
    prompts: range
    #: The group of each.
    groups: list[int]
    #: (n, length, width), padded on the right.
    states: Tensor
    #: (n,) where each suffix ends.
    ends: Tensor
    rotary: Rotary
    #: Keys taken from each prefix.
    prefix_length: int
    #: (n or 1, 1, length, prefix_length + length), additive.
    mask: Tensor
    #: Bool (n, length): where a visual token stands.
    visual: Tensor
    #: DeepStack features (visual tokens, width) to add to the first layers' outputs, by layer and
    #: prompt.
    deepstack: tuple[tuple[Tensor, ...], ...]

    def add_deepstack(self, layer: int) -> None:
        """Add the DeepStack features of a layer to its output, in place."""
        if layer < len(self.deepstack):
            self.states[self.visual] += torch.cat(self.deepstack[layer])

    def end_states(self) -> Tensor:
        """(n, width) state at the end of each suffix."""
        # The last layer computes the ends only.
        return (
            self.states[:, 0] if self.states.shape[1] == 1 else take(self.states, self.ends)[:, 0]
        )


def embed_prefixes(
    family: Family,
    layer_ops: LayerOps,
    groups: Sequence[PromptGroup],
    visual_tokens: Sequence[VisualTokens],
) -> Prefixes:
    """Embed the prefixes of groups, which come longest first."""
    embedded = embed(family, [group.prefix for group in groups], visual_tokens)
    return Prefixes(
        states=embedded.states,
        groups=list(range(len(groups))),
        lengths=[len(group.prefix.ids) for group in groups],
        rotary=layer_ops.rotary(embedded.states, embedded.positions),
        visual=embedded.visual,
        deepstack=embedded.deepstack,
    )


def suffix_blocks(
    family: Family,
    layer_ops: LayerOps,
    ordered: Sequence[OrderedSuffix],
    visual_tokens: Sequence[VisualTokens],
    tokens: int,
) -> Iterator[Block]:
    """Cut suffixes into blocks of about so many tokens.

    Args:
        family: The loaded model.
        layer_ops: The operations of its layers.
        ordered: The suffix of each prompt; similar ones adjacent.
        visual_tokens: Of the distinct images.
        tokens: Of a block; one suffix at least.
    """
    start = 0
    while start < len(ordered):
        stop, longest = start, 0
        while stop < len(ordered):
            longest = max(longest, len(ordered[stop].part.ids))
            if stop > start and (stop + 1 - start) * longest > tokens:
                break
            stop += 1
        yield _block(family, layer_ops, range(start, stop), ordered[start:stop], visual_tokens)
        start = stop


def visibility(prefixes: Sequence[int], prefix_length: int, length: int) -> Tensor:
    """The keys that a suffix's positions attend to: its prefix, and itself up to there.

    Args:
        prefixes: Tokens of the prefix of each suffix.
        prefix_length: Keys of the longest of them.
        length: Of the longest suffix.

    Returns:
        Bool (n, 1, length, prefix_length + length); n is 1 where all prefixes are as long.
    """
    distinct = list(prefixes) if len(set(prefixes)) > 1 else [prefixes[0]]
    of_prefix = torch.arange(prefix_length)[None] < torch.tensor(distinct)[:, None]
    own = torch.ones(length, length, dtype=torch.bool).tril()
    return torch.cat(
        [
            of_prefix[:, None, None].expand(-1, 1, length, -1),
            own.expand(len(distinct), 1, -1, -1),
        ],
        dim=3,
    )


def take(rows: Tensor, positions: Tensor) -> Tensor:
    """The states (n, 1, width) at one position of each row of (n, length, width)."""
    return rows[torch.arange(len(positions), device=rows.device), positions][:, None]


def _block(
    family: Family,
    layer_ops: LayerOps,
    prompts: range,
    ordered: Sequence[OrderedSuffix],
    visual_tokens: Sequence[VisualTokens],
) -> Block:
    embedded = embed(family, [suffix.part for suffix in ordered], visual_tokens)
    states = embedded.states
    lengths = [suffix.prefix_length for suffix in ordered]
    visible = visibility(lengths, max(lengths), states.shape[1])
    mask = torch.zeros(visible.shape, dtype=states.dtype).masked_fill(~visible, -torch.inf)
    return Block(
        prompts=prompts,
        groups=[suffix.group for suffix in ordered],
        states=states,
        ends=torch.tensor([len(suffix.part.ids) - 1 for suffix in ordered], device=states.device),
        rotary=layer_ops.rotary(states, embedded.positions),
        visual=embedded.visual,
        deepstack=embedded.deepstack,
        prefix_length=max(lengths),
        mask=mask.to(states.device),
    )
