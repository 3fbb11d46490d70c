"""One forward of prefixes and suffixes side by side through the decoder, layer after layer."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from nightshift.models.engine.attention import attend_causally, attend_masked
from nightshift.models.engine.enhancement import TriggerState, trigger_layers
from nightshift.models.engine.enhancement_formulas import blend, correction
from nightshift.models.engine.family import Family, LayerOps, VisualTokens
from nightshift.models.engine.packed.batches import memory_owners
from nightshift.models.engine.packed.blocks import (
    Block,
    OrderedSuffix,
    embed_prefixes,
    suffix_blocks,
    take,
)
from nightshift.models.engine.prompts import PromptGroup
from nightshift.models.engine.protocol import Trace
from nightshift.models.engine.runtime.token_budget import tokens_per_pass
from nightshift.schema.params import EnhancementParams

__all__ = ["PackedForward"]

# Tokens that go through a layer at a time on a CPU: few, so that they stay in its cache.
_CPU_TOKENS_PER_LAYER_STEP = 2048
# Prompts whose uncertainty over the whole vocabulary is computed at a time.
_LENS_ROWS = 128

#: Keys and values of the prefixes in one layer, (rows, heads, length, head width) each.
_KeysValues = tuple[Tensor, Tensor]
#: Image tokens that the enhancement blends in: a group, and the first suffix that has these tokens.
_MemoryKey = tuple[int, int]
#: A row of the prefixes, and the memory that is blended into it.
_Fork = tuple[int, _MemoryKey]


class PackedForward:
    """One forward of some groups; run once.

    Args:
        family: The loaded model.
        layer_ops: The operations of its layers.
        groups: Prompts.
        visual_tokens: Of the distinct images.
        enhancement: As `effective` returned it.
        tokens_per_layer_step: Tokens that go through a layer at a time; by default as many as the
            device is fast with.
    """

    def __init__(
        self,
        family: Family,
        layer_ops: LayerOps,
        groups: Sequence[PromptGroup],
        visual_tokens: Sequence[VisualTokens],
        enhancement: EnhancementParams,
        *,
        tokens_per_layer_step: int | None = None,
    ) -> None:
        self._decoder = family.decoder
        self._layer_ops = layer_ops
        self._enhancement = enhancement
        self._window = trigger_layers(enhancement, len(family.decoder.layers))
        groups = sorted(groups, key=lambda group: -len(group.prefix.ids))
        ordered = _ordered_suffixes(groups, enhancement)
        suffixes = [suffix for suffix, _ in ordered]
        self._prefixes = embed_prefixes(family, layer_ops, groups, visual_tokens)
        self._tokens_per_layer_step = tokens_per_layer_step or tokens_per_pass(
            self._prefixes.states.device.type, cpu=_CPU_TOKENS_PER_LAYER_STEP
        )
        self._blocks = list(
            suffix_blocks(family, layer_ops, suffixes, visual_tokens, self._tokens_per_layer_step)
        )
        #: `group/suffix` of each prompt, in the order of everything below.
        self.names = [suffix.part.name for suffix in suffixes]
        # At first all prompts of a group read the same prefix row.
        self._assign_prefix_rows([suffix.group for suffix in suffixes])
        self._memory_keys = [key for _, key in ordered]
        self._memories = self._image_memories(groups, ordered, visual_tokens)
        self._triggers = TriggerState(
            self._decoder, enhancement, [key in self._memories for key in self._memory_keys]
        )

    def run(self) -> Tensor:
        """Normed states (n, width) at the end of each prompt."""
        n_layers = len(self._decoder.layers)
        for layer in range(n_layers):
            last = layer == n_layers - 1
            fired = self._triggers.fired_at(layer - 1) if layer - 1 in self._window else []
            keys_values, variants = self._advance_prefixes(layer, fired, last=last)
            for block in self._blocks:
                self._advance_block(layer, block, keys_values, set(fired), last=last)
            if fired and not last:
                self._switch_prefix_rows(variants, fired)
            if layer in self._window and self._enhancement.trigger == "entropy":
                self._update_triggers(layer)
        ends: Tensor = self._decoder.norm(torch.cat([block.end_states() for block in self._blocks]))
        return ends

    def traces(self) -> list[Trace]:
        """The enhancement's trace of each prompt, in the order of `names`."""
        return self._triggers.traces()

    def _image_memories(
        self,
        groups: Sequence[PromptGroup],
        ordered: Sequence[tuple[OrderedSuffix, _MemoryKey]],
        visual_tokens: Sequence[VisualTokens],
    ) -> dict[_MemoryKey, Tensor]:
        """The tokens (n, width) that the enhancement blends in, where a prompt has any."""
        if self._enhancement.memory == "all":
            return dict(zip(self._memory_keys, self._embedded_prompts(), strict=True))
        images = {
            key: groups[suffix.group].prefix.memory + suffix.part.memory for suffix, key in ordered
        }
        return {
            key: torch.cat([visual_tokens[i].tokens for i in indices])
            for key, indices in images.items()
            if indices
        }

    def _embedded_prompts(self) -> Iterator[Tensor]:
        """The embedded tokens (length, width) of each prompt, before the first layer."""
        prefixes = self._prefixes
        for block in self._blocks:
            for states, group, end in zip(block.states, block.groups, block.ends, strict=True):
                prefix = prefixes.states[group, : prefixes.lengths[group]]
                yield torch.cat([prefix, states[: end + 1]])

    def _advance_prefixes(
        self, layer: int, fired: Sequence[int], *, last: bool
    ) -> tuple[_KeysValues, dict[_Fork, Tensor]]:
        """Move prefixes past a layer; in the last one only their keys and values are computed.

        Returns:
            Keys and values, and the states (length, width) of each variant that prompts which fired
            switch to.
        """
        variants: dict[_Fork, Tensor] = {}
        keys_values: list[_KeysValues] = []
        forks = self._forks(fired)
        prefixes, cos, sin = self._prefixes, *self._prefixes.rotary
        for rows, groups, length in prefixes.row_slices(self._tokens_per_layer_step):
            states = prefixes.states[rows, :length]
            rotary = cos[groups, :length], sin[groups, :length]
            normed = self._layer_ops.attention_input(layer, states)
            keys, values = self._layer_ops.keys_values(layer, normed, rotary)
            keys_values.append((keys, values))
            if last:
                continue
            queries = self._layer_ops.queries(layer, normed, rotary)
            heads = attend_causally(queries, keys, values)
            states = self._layer_ops.add_attention(layer, states, heads)
            x = self._layer_ops.feed_forward_input(layer, states)
            f = self._decoder.feed_forwards[layer](x)
            for row, memory_key in forks:
                if row in range(rows.start, rows.stop):
                    i = row - rows.start
                    variant = states[i] + self._blend(layer, memory_key, x[i], f[i])
                    prefixes.add_deepstack(layer, [groups[i]], variant[None])
                    variants[row, memory_key] = variant
            prefixes.states[rows, :length] = f.add_(states)
            prefixes.add_deepstack(layer, groups, prefixes.states[rows, :length])
        return _padded(keys_values), variants

    def _advance_block(
        self, layer: int, block: Block, of_prefixes: _KeysValues, fired: set[int], *, last: bool
    ) -> None:
        """Move suffixes past a layer; in the last one only their ends are computed."""
        states, rotary, mask = block.states, block.rotary, block.mask
        normed = self._layer_ops.attention_input(layer, states)
        own = self._layer_ops.keys_values(layer, normed, rotary)
        if last:
            states, normed = take(states, block.ends), take(normed, block.ends)
            rotary = take(rotary[0], block.ends), take(rotary[1], block.ends)
            visible = mask[:, 0].expand(len(block.ends), -1, -1)
            mask = take(visible, block.ends)[:, None]
        queries = self._layer_ops.queries(layer, normed, rotary)
        keys, values = (
            torch.cat([self._for_block(prefix[:, :, : block.prefix_length], block), suffix], dim=2)
            for prefix, suffix in zip(of_prefixes, own, strict=True)
        )
        heads = attend_masked(queries, keys, values, mask)
        states = self._layer_ops.add_attention(layer, states, heads)
        x = self._layer_ops.feed_forward_input(layer, states)
        f = self._decoder.feed_forwards[layer](x)
        changed = [i for i, prompt in enumerate(block.prompts) if prompt in fired]
        for key in {self._memory_keys[block.prompts[i]] for i in changed}:
            rows = [i for i in changed if self._memory_keys[block.prompts[i]] == key]
            blended = self._blend(layer, key, x[rows].flatten(0, 1), f[rows].flatten(0, 1))
            f[rows] = blended.unflatten(0, (len(rows), -1))
        block.states = f.add_(states)
        if not last:
            block.add_deepstack(layer)

    def _assign_prefix_rows(self, rows: list[int]) -> None:
        """Set the row of the prefixes that each prompt reads."""
        self._prefix_rows = rows
        # Copied once: each copy waits for the device.
        self._prefix_rows_on_device = torch.tensor(rows, device=self._prefixes.states.device)

    def _for_block(self, of_rows: Tensor, block: Block) -> Tensor:
        """Keys or values that each prompt of a block reads, from those of all prefix rows."""
        prompts = slice(block.prompts.start, block.prompts.stop)
        rows = self._prefix_rows[prompts]
        if len(set(rows)) == 1:
            # Most blocks are of one group: nothing to gather.
            return of_rows[rows[0]].expand(len(rows), -1, -1, -1)
        return of_rows.index_select(0, self._prefix_rows_on_device[prompts])

    def _forks(self, fired: Sequence[int]) -> list[_Fork]:
        """The distinct pairs of prefix row and memory of prompts that fired, in their order."""
        return list(
            dict.fromkeys(
                (self._prefix_rows[prompt], self._memory_keys[prompt]) for prompt in fired
            )
        )

    def _blend(self, layer: int, key: _MemoryKey, x: Tensor, f: Tensor) -> Tensor:
        """Feed-forward outputs (length, width) with a memory blended in."""
        params, gate_size = self._enhancement, self._decoder.gate_sizes[layer]
        delta = correction(x, self._memories[key], gate_size, params.activation)
        return blend(f, delta, params.alpha, params.norm_match)

    def _switch_prefix_rows(self, variants: Mapping[_Fork, Tensor], fired: Sequence[int]) -> None:
        """Give prompts that fired their variant of the prefix; drop rows that no prompt reads."""
        prefixes = self._prefixes
        new_rows = {fork: len(prefixes.groups) + i for i, fork in enumerate(variants)}
        length = prefixes.states.shape[1]
        added = [pad(states, (0, 0, 0, length - len(states))) for states in variants.values()]
        states = torch.cat([prefixes.states, torch.stack(added)])
        groups = prefixes.groups + [prefixes.groups[row] for row, _ in variants]
        for prompt in fired:
            fork = self._prefix_rows[prompt], self._memory_keys[prompt]
            self._prefix_rows[prompt] = new_rows[fork]
        kept = sorted(set(self._prefix_rows))
        self._assign_prefix_rows([kept.index(row) for row in self._prefix_rows])
        prefixes.states, prefixes.groups = states[kept], [groups[row] for row in kept]

    def _update_triggers(self, layer: int) -> None:
        pending = self._triggers.pending()
        if not pending:
            return
        ends = torch.cat([block.end_states() for block in self._blocks])
        for start in range(0, len(pending), _LENS_ROWS):
            prompts = pending[start : start + _LENS_ROWS]
            self._triggers.update(layer, prompts, ends[prompts])


def _ordered_suffixes(
    groups: Sequence[PromptGroup], enhancement: EnhancementParams
) -> list[tuple[OrderedSuffix, _MemoryKey]]:
    """All suffixes, longest prefix first, then longest suffix first; with their memories."""
    ordered = [
        (
            OrderedSuffix(group=i, prefix_length=len(group.prefix.ids), part=suffix),
            (i, memory_owner),
        )
        for i, group in enumerate(groups)
        for suffix, memory_owner in zip(
            group.suffixes, memory_owners(group, enhancement), strict=True
        )
    ]
    ordered.sort(key=lambda pair: (-pair[0].prefix_length, -len(pair[0].part.ids)))
    return ordered


def _padded(keys_values: Sequence[_KeysValues]) -> _KeysValues:
    """Keys and values of all rows, padded with zeros to the longest."""
    length = max(keys.shape[2] for keys, _ in keys_values)
    keys, values = (
        torch.cat([pad(heads, (0, 0, 0, length - heads.shape[2])) for heads in of_rows])
        for of_rows in zip(*keys_values, strict=True)
    )
    return keys, values
