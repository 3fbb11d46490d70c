"""Greedy generation from one prompt, with the same weights that embed and score.

Where layers can be taken apart, each new token costs one step over kept keys and values; else
the whole prompt is read again for every token.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from nightshift.models.engine.again import Again
from nightshift.models.engine.family import Embedded, Family, Steps, VisualTokens
from nightshift.models.engine.prompts import Prompt, embed
from nightshift.models.engine.reading import head_logits
from nightshift.schema.errors import InputError

__all__ = ["generate"]


@torch.inference_mode()
def generate(
    family: Family,
    prompt: Prompt,
    seen: Sequence[VisualTokens],
    *,
    max_tokens: int,
    stop_ids: Collection[int],
    again: Again | None = None,
) -> list[int]:
    """The most likely continuation, token by token, raw logits alone deciding.

    Args:
        family: The loaded model.
        prompt: What it continues.
        seen: Visual tokens of the distinct pictures.
        max_tokens: At the most.
        stop_ids: Tokens that end an answer.
        again: Looks at the picture again where layers can be taken apart; is told of each choice.

    Returns:
        Ids; shorter than `max_tokens` where a stop token ended it, which is left out.

    Raises:
        InputError: A logit is not finite; `subject_id` is the prompt's place.
    """
    reader = _Kept(family, family.steps, again) if family.steps else _Whole(family)
    state = reader.begin(prompt, seen)
    found: list[int] = []
    while True:
        logits = head_logits(family.decoder.head_weight, state[None])
        if not logits.isfinite().all():
            raise InputError(
                f"the model's logits for pair {prompt.place} are not finite: try float32",
                "score_not_finite",
                prompt.place,
            )
        if again is not None:
            again.chosen(logits)
        token = int(logits.argmax())
        if token in stop_ids:
            return found
        found.append(token)
        if len(found) == max_tokens:
            return found
        state = reader.go_on(token)


class _Whole:
    """Reads the prompt anew with every token."""

    def __init__(self, family: Family) -> None:
        self._family = family

    def begin(self, prompt: Prompt, seen: Sequence[VisualTokens]) -> Tensor:
        """Normed state (width,) at the end of the prompt."""
        self._prompt, self._seen = prompt, seen
        return self._read()

    def go_on(self, token: int) -> Tensor:
        """Normed state (width,) behind one more token."""
        ids, positions = self._prompt.ids, self._prompt.positions
        self._prompt = replace(
            self._prompt,
            ids=torch.cat([ids, ids.new_tensor([token])]),
            positions=torch.cat([positions, _next(positions)], dim=1),
        )
        return self._read()

    def _read(self) -> Tensor:
        return self._family.decode(embed(self._family, [self._prompt], self._seen))[0, -1]


class _Kept:
    """Keeps the keys and values of each layer."""

    def __init__(self, family: Family, steps: Steps, again: Again | None) -> None:
        self._family = family
        self._steps = steps
        self._again = again
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    def begin(self, prompt: Prompt, seen: Sequence[VisualTokens]) -> Tensor:
        """Normed state (width,) at the end of the prompt."""
        embedded = embed(self._family, [prompt], seen)
        self._position = _next(prompt.positions)
        return self._read(embedded)

    def go_on(self, token: int) -> Tensor:
        """Normed state (width,) behind one more token."""
        ids = torch.tensor([[token]])
        embedded = Embedded(
            states=self._family.embed(ids),
            positions=self._position[:, None],
            visual=torch.zeros(1, 1, dtype=torch.bool),
        )
        self._position = self._position + 1
        return self._read(embedded)

    def _read(self, embedded: Embedded) -> Tensor:
        steps, decoder, states = self._steps, self._family.decoder, embedded.states
        rotary = steps.rotary(states, embedded.positions)
        first = not self._keys
        if self._again:
            self._again.begin(states)
        for layer, feed_forward in enumerate(decoder.feed_forwards):
            normed = steps.normed(layer, states)
            keys, values = steps.keys_values(layer, normed, rotary)
            if first:
                self._keys.append(keys)
                self._values.append(values)
            else:
                keys = self._keys[layer] = torch.cat([self._keys[layer], keys], dim=2)
                values = self._values[layer] = torch.cat([self._values[layer], values], dim=2)
            queries = steps.queries(layer, normed, rotary)
            heads = scaled_dot_product_attention(
                queries, keys, values, is_causal=first, enable_gqa=True
            )
            states = steps.attended(layer, states, heads)
            x = steps.feed_forward_input(layer, states)
            f = feed_forward(x)
            states = states + (self._again.injected(layer, x, f) if self._again else f)
            if layer < len(embedded.deep):
                states[embedded.visual] += torch.cat(embedded.deep[layer])
            if self._again:
                self._again.look(layer, states)
        last: Tensor = decoder.norm(states[:, -1])[0]
        return last


def _next(positions: Tensor) -> Tensor:
    """The position (axes, 1) behind all of these (axes, length)."""
    return (positions.max() + 1).expand(len(positions), 1)
