"""What a packed forward holds: padded prefixes, and suffixes in blocks of similar length."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nightshift.models.engine.family import Family, LayerOps, Rotary, VisualTokens
from nightshift.models.engine.prompts import Part, PromptGroup, embed

__all__ = ["Block", "Prefixes", "prefixes", "suffix_blocks", "take", "visibility"]


@dataclass(slots=True, kw_only=True)
class Prefixes:
    """Variants of the prefixes, one a row; at first one of each group, longest first."""

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
    #: Features to add behind the first layers, by layer and group.
    deepstack: tuple[tuple[Tensor, ...], ...]

    def steps(self, tokens: int) -> Iterator[tuple[slice, list[int], int]]:
        """Rows of about so many tokens, their groups, and the longest of their lengths."""
        start = 0
        while start < len(self.groups):
            longest = max(self.lengths[group] for group in self.groups[start:])
            stop = start + max(1, tokens // longest)
            groups = self.groups[start:stop]
            yield slice(start, start + len(groups)), groups, max(self.lengths[g] for g in groups)
            start += len(groups)

    def add_deepstack(self, layer: int, groups: Sequence[int], states: Tensor) -> None:
        """Add what rows (groups, length, width) of these groups get behind a layer."""
        if layer < len(self.deepstack):
            at = self.visual[groups, : states.shape[1]]
            states[at] += torch.cat([self.deepstack[layer][group] for group in groups])


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
    #: Features to add behind the first layers, by layer and prompt.
    deepstack: tuple[tuple[Tensor, ...], ...]

    def add_deepstack(self, layer: int) -> None:
        """Add what the states get behind a layer."""
        if layer < len(self.deepstack):
            self.states[self.visual] += torch.cat(self.deepstack[layer])

    def last(self) -> Tensor:
        """(n, width) state at the end of each."""
        # After the last layer nothing but the ends is left.
        return (
            self.states[:, 0] if self.states.shape[1] == 1 else take(self.states, self.ends)[:, 0]
        )


def prefixes(
    family: Family, steps: LayerOps, groups: Sequence[PromptGroup], seen: Sequence[VisualTokens]
) -> Prefixes:
    """The prefixes of groups, which come longest first."""
    embedded = embed(family, [group.prefix for group in groups], seen)
    return Prefixes(
        states=embedded.states,
        groups=list(range(len(groups))),
        lengths=[len(group.prefix.ids) for group in groups],
        rotary=steps.rotary(embedded.states, embedded.positions),
        visual=embedded.visual,
        deepstack=embedded.deepstack,
    )


def suffix_blocks(
    family: Family,
    steps: LayerOps,
    ordered: Sequence[tuple[int, int, Part]],
    seen: Sequence[VisualTokens],
    tokens: int,
) -> Iterator[Block]:
    """Cut suffixes into blocks of about so many tokens.

    Args:
        family: The loaded model.
        steps: Its layers, taken apart.
        ordered: Group, length of its prefix, and suffix of each prompt; similar ones adjacent.
        seen: Visual tokens of the distinct pictures.
        tokens: Of a block; one suffix at least.
    """
    start = 0
    while start < len(ordered):
        stop, longest = start, 0
        while stop < len(ordered):
            longest = max(longest, len(ordered[stop][2].ids))
            if stop > start and (stop + 1 - start) * longest > tokens:
                break
            stop += 1
        yield _block(family, steps, range(start, stop), ordered[start:stop], seen)
        start = stop


def visibility(prefixes: Sequence[int], prefix_length: int, length: int) -> Tensor:
    """Which keys a suffix's positions see: its prefix, and itself up to there.

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


def take(rows: Tensor, places: Tensor) -> Tensor:
    """(n, 1, width) of rows (n, length, width): one place of each."""
    return rows[torch.arange(len(places), device=rows.device), places][:, None]


def _block(
    family: Family,
    steps: LayerOps,
    prompts: range,
    ordered: Sequence[tuple[int, int, Part]],
    seen: Sequence[VisualTokens],
) -> Block:
    embedded = embed(family, [suffix for _, _, suffix in ordered], seen)
    states = embedded.states
    lengths = [length for _, length, _ in ordered]
    visible = visibility(lengths, max(lengths), states.shape[1])
    mask = torch.zeros(visible.shape, dtype=states.dtype).masked_fill(~visible, -torch.inf)
    return Block(
        prompts=prompts,
        groups=[group for group, _, _ in ordered],
        states=states,
        ends=torch.tensor([len(suffix.ids) - 1 for _, _, suffix in ordered], device=states.device),
        rotary=steps.rotary(states, embedded.positions),
        visual=embedded.visual,
        deepstack=embedded.deepstack,
        prefix_length=max(lengths),
        mask=mask.to(states.device),
    )
