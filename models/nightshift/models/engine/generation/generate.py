"""Greedy generation from a few prompts, with the same weights that embed and score.

Where a family has `LayerOps`, each new token costs one step over a cache of keys and values, for
all prompts together; else the prompts are read again for every token.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from nightshift.models.engine.attention import attend_causally, attend_masked
from nightshift.models.engine.family import EmbeddedPrompts, Family, LayerOps, VisualTokens
from nightshift.models.engine.generation.enhancement import DecodingEnhancement
from nightshift.models.engine.prompts import Prompt, embed
from nightshift.models.engine.readout import head_logits
from nightshift.schema.errors import InputError

__all__ = ["generate"]


@torch.inference_mode()
def generate(
    family: Family,
    prompts: Sequence[Prompt],
    visual_tokens: Sequence[VisualTokens],
    *,
    max_tokens: int,
    stop_ids: Collection[int],
    enhancement: DecodingEnhancement | None = None,
) -> list[list[int]]:
    """Generate the most likely continuation of each prompt, token by token, from raw logits.

    Args:
        family: The loaded model.
        prompts: The prompts to continue; in float32 the others of a call change nothing.
        visual_tokens: Of the distinct images.
        max_tokens: Of each continuation.
        stop_ids: Tokens that end an answer.
        enhancement: Of these prompts; acts where the family has `LayerOps`.

    Returns:
        Ids of each; shorter than `max_tokens` where a stop token ended it, which is left out.

    Raises:
        InputError: A logit is not finite; `subject_id` is the prompt's name.
    """
    reader = (
        KvCacheReader(family, family.layer_ops, max_tokens, enhancement)
        if family.layer_ops
        else RecomputeReader(family)
    )
    states = reader.begin(prompts, visual_tokens)
    continuations: list[list[int]] = [[] for _ in prompts]
    active = list(range(len(prompts)))
    while True:
        logits = head_logits(family.decoder.head_weight, states)
        _refuse_infinite(logits, [prompts[prompt].name for prompt in active])
        if enhancement is not None:
            enhancement.record_choice(logits)
        tokens = logits.argmax(1).tolist()
        remaining = []
        for row, (prompt, token) in enumerate(zip(active, tokens, strict=True)):
            if token not in stop_ids:
                continuations[prompt].append(token)
                if len(continuations[prompt]) < max_tokens:
                    remaining.append(row)
        if not remaining:
            return continuations
        states = reader.step(remaining, [tokens[row] for row in remaining])
        active = [active[row] for row in remaining]


class RecomputeReader:
    """Reads the prompts again for every token."""

    def __init__(self, family: Family) -> None:
        self._family = family

    def begin(self, prompts: Sequence[Prompt], visual_tokens: Sequence[VisualTokens]) -> Tensor:
        """Normed states (n, width) at the ends of the prompts."""
        self._prompts, self._visual_tokens = list(prompts), visual_tokens
        return self._read()

    def step(self, rows: Sequence[int], tokens: Sequence[int]) -> Tensor:
        """Normed states (n, width) of these rows, behind one more token each.

        Args:
            rows: Rows of the previous states; the others are dropped.
            tokens: The token chosen for each.
        """
        self._prompts = [
            _extended(self._prompts[row], token) for row, token in zip(rows, tokens, strict=True)
        ]
        return self._read()

    def _read(self) -> Tensor:
        states = self._family.decode(embed(self._family, self._prompts, self._visual_tokens))
        return states[range(len(states)), [len(prompt.ids) - 1 for prompt in self._prompts]]


#: Attends from the queries of a layer to its new keys and values, and to cached ones.
_Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


class KvCacheReader:
    """Keeps the keys and values of each layer: (n, heads, columns, head width).

    Prompts are read one by one, then padded to the longest; generated tokens take the columns
    behind it.
    """

    def __init__(
        self,
        family: Family,
        layer_ops: LayerOps,
        max_tokens: int,
        enhancement: DecodingEnhancement | None,
    ) -> None:
        self._family = family
        self._layer_ops = layer_ops
        self._max_tokens = max_tokens
        self._enhancement = enhancement
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    def begin(self, prompts: Sequence[Prompt], visual_tokens: Sequence[VisualTokens]) -> Tensor:
        """Normed states (n, width) at the ends of the prompts."""
        lengths = torch.tensor([len(prompt.ids) for prompt in prompts])
        self._end = int(lengths.max())
        states, keys, values = [], [], []
        for i, prompt in enumerate(prompts):
            new_keys: list[Tensor] = []
            new_values: list[Tensor] = []
            embedded = embed(self._family, [prompt], visual_tokens)
            if self._enhancement:
                self._enhancement.begin_forward(embedded.states, [i], reads_prompts=True)
            states.append(self._read(embedded, _attend_and_keep(new_keys, new_values)))
            keys.append(new_keys)
            values.append(new_values)
        self._keys, self._values = self._stacked(keys), self._stacked(values)
        #: Bool (n, columns): all but the padding; None where there is none.
        self._not_padding: Tensor | None = None
        if int(lengths.min()) < self._end:
            not_padding = torch.arange(self._end) < lengths[:, None]
            self._not_padding = pad(not_padding, (0, self._max_tokens), value=True).to(
                states[0].device
            )
        self._positions = torch.cat([_next_position(prompt.positions) for prompt in prompts], dim=1)
        #: The index of each row's prompt.
        self._active = list(range(len(prompts)))
        return torch.cat(states)

    def step(self, rows: Sequence[int], tokens: Sequence[int]) -> Tensor:
        """Normed states (n, width) of these rows, behind one more token each.

        Args:
            rows: Rows of the previous states; the others are dropped.
            tokens: The token chosen for each.
        """
        if len(rows) < len(self._keys[0]):
            self._keep_rows(list(rows))
        ids = torch.tensor(tokens)[:, None]
        embedded = EmbeddedPrompts(
            states=self._family.embed(ids),
            positions=self._positions[:, :, None],
            visual=torch.zeros(len(ids), 1, dtype=torch.bool),
        )
        self._positions = self._positions + 1
        self._end += 1
        if self._enhancement:
            self._enhancement.begin_forward(embedded.states, self._active, reads_prompts=False)
        return self._read(embedded, self._attend)

    def _read(self, embedded: EmbeddedPrompts, attend: _Attend) -> Tensor:
        ops, decoder, states = self._layer_ops, self._family.decoder, embedded.states
        rotary = ops.rotary(states, embedded.positions)
        for layer, feed_forward in enumerate(decoder.feed_forwards):
            normed = ops.attention_input(layer, states)
            keys, values = ops.keys_values(layer, normed, rotary)
            heads = attend(layer, ops.queries(layer, normed, rotary), keys, values)
            states = ops.add_attention(layer, states, heads)
            x = ops.feed_forward_input(layer, states)
            f = feed_forward(x)
            states = states + (self._enhancement.blended(layer, x, f) if self._enhancement else f)
            if layer < len(embedded.deepstack):
                states[embedded.visual] += torch.cat(embedded.deepstack[layer])
            if self._enhancement:
                self._enhancement.update(layer, states)
        if self._enhancement:
            self._enhancement.end_forward()
        ends: Tensor = decoder.norm(states[:, -1])
        return ends

    def _attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        self._keys[layer][:, :, self._end - 1 : self._end] = keys
        self._values[layer][:, :, self._end - 1 : self._end] = values
        mask = None if self._not_padding is None else self._not_padding[:, None, None, : self._end]
        keys, values = (cached[layer][:, :, : self._end] for cached in (self._keys, self._values))
        return attend_masked(queries, keys, values, mask)

    def _stacked(self, of_prompts: list[list[Tensor]]) -> list[Tensor]:
        """The keys, or values, of all prompts in one tensor a layer, with room for new tokens."""
        return [
            torch.cat(
                [
                    pad(heads, (0, 0, 0, self._end + self._max_tokens - heads.shape[2]))
                    for heads in layer
                ]
            )
            for layer in zip(*of_prompts, strict=True)
        ]

    def _keep_rows(self, rows: list[int]) -> None:
        self._keys = [keys[rows] for keys in self._keys]
        self._values = [values[rows] for values in self._values]
        self._positions = self._positions[:, rows]
        self._active = [self._active[row] for row in rows]
        self._not_padding = None if self._not_padding is None else self._not_padding[rows]


def _attend_and_keep(keys: list[Tensor], values: list[Tensor]) -> _Attend:
    """Attention inside one prompt that appends each layer's keys and values to these lists."""

    def attend(_layer: int, queries: Tensor, new_keys: Tensor, new_values: Tensor) -> Tensor:
        keys.append(new_keys)
        values.append(new_values)
        return attend_causally(queries, new_keys, new_values)

    return attend


def _refuse_infinite(logits: Tensor, names: Sequence[str]) -> None:
    finite = logits.isfinite().all(1).tolist()
    if not all(finite):
        name = names[finite.index(False)]
        raise InputError(
            f"the model's logits for pair {name} are not finite: try float32",
            "score_not_finite",
            name,
        )


def _extended(prompt: Prompt, token: int) -> Prompt:
    return replace(
        prompt,
        ids=torch.cat([prompt.ids, prompt.ids.new_tensor([token])]),
        positions=torch.cat([prompt.positions, _next_position(prompt.positions)], dim=1),
    )


def _next_position(positions: Tensor) -> Tensor:
    """The position (axes, 1) after all of these (axes, length)."""
    return (positions.max() + 1).expand(len(positions), 1)
