"""Prefixes and suffixes side by side through the decoder, layer after layer."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from nightshift.models.engine.attention import attend_causally, attend_masked
from nightshift.models.engine.enhancement import TriggerState, blend, correction, trigger_layers
from nightshift.models.engine.family import Family, LayerOps, VisualTokens
from nightshift.models.engine.packed.batches import looks
from nightshift.models.engine.packed.blocks import Block, prefixes, suffix_blocks, take
from nightshift.models.engine.prompts import PromptGroup
from nightshift.models.engine.protocol import Trace
from nightshift.schema.params import EnhancementParams

__all__ = ["PackedForward"]

# Tokens that go through a layer at a time: few stay in a CPU's cache, many keep a GPU busy.
_TOKENS_PER_STEP = {"cpu": 2048, "cuda": 16_384}
# Prompts whose uncertainty over the whole vocabulary is computed at a time.
_LENS_ROWS = 128

#: Keys and values of the prefixes in one layer, (rows, heads, length, head width) each.
_Memory = tuple[Tensor, Tensor]
#: A group, and the first of its suffixes whose prompt looks at the same again.
_Look = tuple[int, int]
#: A row of the prefixes, and the look that changes it.
_Fork = tuple[int, _Look]


class PackedForward:
    """One forward of some groups; run once.

    Args:
        family: The loaded model.
        steps: Its layers, taken apart.
        groups: Prompts.
        seen: Visual tokens of the distinct pictures.
        enhancement: As `effective` returned it.
    """

    def __init__(
        self,
        family: Family,
        steps: LayerOps,
        groups: Sequence[PromptGroup],
        seen: Sequence[VisualTokens],
        enhancement: EnhancementParams,
    ) -> None:
        self._decoder = family.decoder
        self._steps = steps
        self._enhancement = enhancement
        self._window = trigger_layers(enhancement, len(family.decoder.layers))
        groups = sorted(groups, key=lambda one: -len(one.prefix.ids))
        ordered = [
            (i, len(g.prefix.ids), suffix, (i, look))
            for i, g in enumerate(groups)
            for suffix, look in zip(g.suffixes, looks(g, enhancement), strict=True)
        ]
        ordered.sort(key=lambda one: (-one[1], -len(one[2].ids)))
        self._prefixes = prefixes(family, steps, groups, seen)
        self._step = _TOKENS_PER_STEP.get(self._prefixes.states.device.type, 16_384)
        parts = [one[:3] for one in ordered]
        self._blocks = list(suffix_blocks(family, steps, parts, seen, self._step))
        #: `group/suffix` of each prompt, in the order of everything below.
        self.places = [suffix.place for _, _, suffix in parts]
        #: The row of each prompt's prefix: all of a group start from the same one.
        self._own([group for group, _, _ in parts])
        #: What each prompt would look at again: the same for those that look at the same.
        self._looks = [look for *_, look in ordered]
        if enhancement.memory == "all":
            self._memories = dict(zip(self._looks, self._embedded(), strict=True))
        else:
            shown = {
                look: groups[group].prefix.memory + suffix.memory
                for group, _, suffix, look in ordered
            }
            self._memories = {
                look: torch.cat([seen[i].tokens for i in pictures])
                for look, pictures in shown.items()
                if pictures
            }
        self._watch = TriggerState(
            self._decoder, enhancement, [look in self._memories for look in self._looks]
        )

    def run(self) -> Tensor:
        """Normed states (n, width) at the end of each prompt."""
        n_layers = len(self._decoder.layers)
        for layer in range(n_layers):
            last = layer == n_layers - 1
            fired = self._watch.at(layer - 1) if layer - 1 in self._window else []
            memory, variants = self._advance_prefixes(layer, fired, last=last)
            for block in self._blocks:
                self._advance(layer, block, memory, set(fired), last=last)
            if fired and not last:
                self._settle(variants, fired)
            if layer in self._window and self._enhancement.trigger == "entropy":
                self._look(layer)
        ends: Tensor = self._decoder.norm(torch.cat([block.last() for block in self._blocks]))
        return ends

    def traces(self) -> list[Trace]:
        """What the enhancement did to each prompt."""
        return self._watch.traces()

    def _embedded(self) -> Iterator[Tensor]:
        """What the decoder is about to read of each prompt, (length, width)."""
        own = self._prefixes
        for block in self._blocks:
            for states, group, end in zip(block.states, block.groups, block.ends, strict=True):
                yield torch.cat([own.states[group, : own.lengths[group]], states[: end + 1]])

    def _advance_prefixes(
        self, layer: int, fired: Sequence[int], *, last: bool
    ) -> tuple[_Memory, dict[_Fork, Tensor]]:
        """Move prefixes past a layer; in the last one only their keys and values are wanted.

        Returns:
            Keys and values, and what each look of prompts that fired makes of the row they read.
        """
        enhanced: dict[_Fork, Tensor] = {}
        memories: list[_Memory] = []
        forks = self._forks(fired)
        own, cos, sin = self._prefixes, *self._prefixes.rotary
        for rows, groups, length in own.steps(self._step):
            states = own.states[rows, :length]
            rotary = cos[groups, :length], sin[groups, :length]
            normed = self._steps.normed(layer, states)
            keys, values = self._steps.keys_values(layer, normed, rotary)
            memories.append((keys, values))
            if last:
                continue
            queries = self._steps.queries(layer, normed, rotary)
            heads = attend_causally(queries, keys, values)
            states = self._steps.attended(layer, states, heads)
            x = self._steps.feed_forward_input(layer, states)
            f = self._decoder.feed_forwards[layer](x)
            for row, look in forks:
                if row in range(rows.start, rows.stop):
                    i = row - rows.start
                    fork = states[i] + self._blend(layer, look, x[i], f[i])
                    own.add_deepstack(layer, [groups[i]], fork[None])
                    enhanced[row, look] = fork
            own.states[rows, :length] = f.add_(states)
            own.add_deepstack(layer, groups, own.states[rows, :length])
        return _joined(memories), enhanced

    def _advance(
        self, layer: int, block: Block, memory: _Memory, fired: set[int], *, last: bool
    ) -> None:
        """Move suffixes past a layer; in the last one only their ends are wanted."""
        states, rotary, mask = block.states, block.rotary, block.mask
        normed = self._steps.normed(layer, states)
        own = self._steps.keys_values(layer, normed, rotary)
        if last:
            states, normed = take(states, block.ends), take(normed, block.ends)
            rotary = take(rotary[0], block.ends), take(rotary[1], block.ends)
            visible = mask[:, 0].expand(len(block.ends), -1, -1)
            mask = take(visible, block.ends)[:, None]
        queries = self._steps.queries(layer, normed, rotary)
        keys, values = (
            torch.cat([self._owned(ours[:, :, : block.prefix_length], block), theirs], dim=2)
            for ours, theirs in zip(memory, own, strict=True)
        )
        heads = attend_masked(queries, keys, values, mask)
        states = self._steps.attended(layer, states, heads)
        x = self._steps.feed_forward_input(layer, states)
        f = self._decoder.feed_forwards[layer](x)
        changed = [i for i, prompt in enumerate(block.prompts) if prompt in fired]
        for look in {self._looks[block.prompts[i]] for i in changed}:
            alike = [i for i in changed if self._looks[block.prompts[i]] == look]
            blended = self._blend(layer, look, x[alike].flatten(0, 1), f[alike].flatten(0, 1))
            f[alike] = blended.unflatten(0, (len(alike), -1))
        block.states = f.add_(states)
        if not last:
            block.add_deepstack(layer)

    def _own(self, owners: list[int]) -> None:
        """Say which row of the prefixes each prompt reads."""
        self._owners = owners
        # Made once: each time would be a wait for the device.
        self._owner_rows = torch.tensor(owners, device=self._prefixes.states.device)

    def _owned(self, of: Tensor, block: Block) -> Tensor:
        """The rows that belong to the prompts of a block."""
        prompts = slice(block.prompts.start, block.prompts.stop)
        owners = self._owners[prompts]
        if len(set(owners)) == 1:
            # Most blocks are of one group: nothing to gather.
            return of[owners[0]].expand(len(owners), -1, -1, -1)
        return of.index_select(0, self._owner_rows[prompts])

    def _forks(self, fired: Sequence[int]) -> list[_Fork]:
        """The distinct ones that some prompts make, in their order."""
        return list(dict.fromkeys((self._owners[one], self._looks[one]) for one in fired))

    def _blend(self, layer: int, look: _Look, x: Tensor, f: Tensor) -> Tensor:
        """Feed-forward outputs (length, width) with what a look sees again in them."""
        params, size = self._enhancement, self._decoder.gate_sizes[layer]
        delta = correction(x, self._memories[look], size, params.activation)
        return blend(f, delta, params.alpha, params.norm_match)

    def _settle(self, enhanced: Mapping[_Fork, Tensor], fired: Sequence[int]) -> None:
        """Give prompts that fired the enhanced variant of their prefix; drop rows nobody reads."""
        own = self._prefixes
        places = {fork: len(own.groups) + i for i, fork in enumerate(enhanced)}
        length = own.states.shape[1]
        added = [pad(states, (0, 0, 0, length - len(states))) for states in enhanced.values()]
        states = torch.cat([own.states, torch.stack(added)])
        groups = own.groups + [own.groups[row] for row, _ in enhanced]
        for prompt in fired:
            self._owners[prompt] = places[self._owners[prompt], self._looks[prompt]]
        kept = sorted(set(self._owners))
        self._own([kept.index(row) for row in self._owners])
        own.states, own.groups = states[kept], [groups[row] for row in kept]

    def _look(self, layer: int) -> None:
        undecided = self._watch.undecided()
        if not undecided:
            return
        ends = torch.cat([block.last() for block in self._blocks])
        for start in range(0, len(undecided), _LENS_ROWS):
            some = undecided[start : start + _LENS_ROWS]
            self._watch.look(layer, some, ends[some])


def _joined(memories: Sequence[_Memory]) -> _Memory:
    """Keys and values of all rows, padded with zeros to the longest."""
    length = max(keys.shape[2] for keys, _ in memories)
    keys, values = (
        torch.cat([pad(one, (0, 0, 0, length - one.shape[2])) for one in each])
        for each in zip(*memories, strict=True)
    )
    return keys, values
