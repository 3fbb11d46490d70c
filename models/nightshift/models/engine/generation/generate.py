"""Greedy generation from a few prompts, with the same weights that embed and score.

Where layers can be taken apart, each new token costs one step over kept keys and values, for all
prompts at once; else the prompts are read again for every token.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from nightshift.models.engine.attention import attend_causally, attend_masked
from nightshift.models.engine.family import Embedded, Family, LayerOps, VisualTokens
from nightshift.models.engine.generation.enhancement import DecodingEnhancement
from nightshift.models.engine.prompts import Prompt, embed
from nightshift.models.engine.readout import head_logits
from nightshift.schema.errors import InputError

__all__ = ["generate"]


@torch.inference_mode()
def generate(
    family: Family,
    prompts: Sequence[Prompt],
    seen: Sequence[VisualTokens],
    *,
    max_tokens: int,
    stop_ids: Collection[int],
    again: DecodingEnhancement | None = None,
) -> list[list[int]]:
    """The most likely continuation of each prompt, token by token, raw logits alone deciding.

    Args:
        family: The loaded model.
        prompts: What is continued; in float32 each as it would be alone.
        seen: Visual tokens of the distinct pictures.
        max_tokens: Of each, at the most.
        stop_ids: Tokens that end an answer.
        again: Looks at the pictures of these prompts again, where layers can be taken apart; is
            told of each choice.

    Returns:
        Ids of each; shorter than `max_tokens` where a stop token ended it, which is left out.

    Raises:
        InputError: A logit is not finite; `subject_id` is the prompt's place.
    """
    reader = (
        KvCacheReader(family, family.layer_ops, max_tokens, again)
        if family.layer_ops
        else RecomputeReader(family)
    )
    states = reader.begin(prompts, seen)
    found: list[list[int]] = [[] for _ in prompts]
    writing = list(range(len(prompts)))
    while True:
        logits = head_logits(family.decoder.head_weight, states)
        _refuse_infinite(logits, [prompts[one].place for one in writing])
        if again is not None:
            again.chosen(logits)
        tokens = logits.argmax(1).tolist()
        left = []
        for row, (one, token) in enumerate(zip(writing, tokens, strict=True)):
            if token not in stop_ids:
                found[one].append(token)
                if len(found[one]) < max_tokens:
                    left.append(row)
        if not left:
            return found
        states = reader.go_on(left, [tokens[row] for row in left])
        writing = [writing[row] for row in left]


class RecomputeReader:
    """Reads the prompts anew with every token."""

    def __init__(self, family: Family) -> None:
        self._family = family

    def begin(self, prompts: Sequence[Prompt], seen: Sequence[VisualTokens]) -> Tensor:
        """Normed states (n, width) at the ends of the prompts."""
        self._prompts, self._seen = list(prompts), seen
        return self._read()

    def go_on(self, rows: Sequence[int], tokens: Sequence[int]) -> Tensor:
        """Normed states (n, width) of these rows alone, behind one more token each."""
        self._prompts = [
            _longer(self._prompts[row], token) for row, token in zip(rows, tokens, strict=True)
        ]
        return self._read()

    def _read(self) -> Tensor:
        states = self._family.decode(embed(self._family, self._prompts, self._seen))
        return states[range(len(states)), [len(prompt.ids) - 1 for prompt in self._prompts]]


#: Lets the queries of a layer attend to its new keys and values, and to older ones.
_Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


class KvCacheReader:
    """Keeps the keys and values of each layer: (n, heads, columns, head width).

    Prompts are read one by one, then filled up to the longest; what they write stands in the same
    columns behind it.
    """

    def __init__(
        self, family: Family, steps: LayerOps, max_tokens: int, again: DecodingEnhancement | None
    ) -> None:
        self._family = family
        self._steps = steps
        self._room = max_tokens
        self._again = again
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    def begin(self, prompts: Sequence[Prompt], seen: Sequence[VisualTokens]) -> Tensor:
        """Normed states (n, width) at the ends of the prompts."""
        lengths = torch.tensor([len(prompt.ids) for prompt in prompts])
        self._end = int(lengths.max())
        states, keys, values = [], [], []
        for i, prompt in enumerate(prompts):
            new_keys: list[Tensor] = []
            new_values: list[Tensor] = []
            embedded = embed(self._family, [prompt], seen)
            if self._again:
                self._again.begin(embedded.states, [i], reading=True)
            states.append(self._read(embedded, _into(new_keys, new_values)))
            keys.append(new_keys)
            values.append(new_values)
        self._keys, self._values = self._beside(keys), self._beside(values)
        #: Bool (n, columns): all but the filling; None where there is none.
        self._holds: Tensor | None = None
        if int(lengths.min()) < self._end:
            filled = torch.arange(self._end) < lengths[:, None]
            self._holds = pad(filled, (0, self._room), value=True).to(states[0].device)
        self._positions = torch.cat([_next(prompt.positions) for prompt in prompts], dim=1)
        #: The prompt of each row.
        self._writing = list(range(len(prompts)))
        return torch.cat(states)

    def go_on(self, rows: Sequence[int], tokens: Sequence[int]) -> Tensor:
        """Normed states (n, width) of these rows alone, behind one more token each."""
        if len(rows) < len(self._keys[0]):
            self._keep(list(rows))
        ids = torch.tensor(tokens)[:, None]
        embedded = Embedded(
            states=self._family.embed(ids),
            positions=self._positions[:, :, None],
            visual=torch.zeros(len(ids), 1, dtype=torch.bool),
        )
        self._positions = self._positions + 1
        self._end += 1
        if self._again:
            self._again.begin(embedded.states, self._writing, reading=False)
        return self._read(embedded, self._attend)

    def _read(self, embedded: Embedded, attend: _Attend) -> Tensor:
        steps, decoder, states = self._steps, self._family.decoder, embedded.states
        rotary = steps.rotary(states, embedded.positions)
        for layer, feed_forward in enumerate(decoder.feed_forwards):
            normed = steps.normed(layer, states)
            keys, values = steps.keys_values(layer, normed, rotary)
            heads = attend(layer, steps.queries(layer, normed, rotary), keys, values)
            states = steps.attended(layer, states, heads)
            x = steps.feed_forward_input(layer, states)
            f = feed_forward(x)
            states = states + (self._again.injected(layer, x, f) if self._again else f)
            if layer < len(embedded.deepstack):
                states[embedded.visual] += torch.cat(embedded.deepstack[layer])
            if self._again:
                self._again.look(layer, states)
        if self._again:
            self._again.end()
        last: Tensor = decoder.norm(states[:, -1])
        return last

    def _attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        self._keys[layer][:, :, self._end - 1 : self._end] = keys
        self._values[layer][:, :, self._end - 1 : self._end] = values
        holds = None if self._holds is None else self._holds[:, None, None, : self._end]
        keys, values = (kept[layer][:, :, : self._end] for kept in (self._keys, self._values))
        return attend_masked(queries, keys, values, holds)

    def _beside(self, of_prompts: list[list[Tensor]]) -> list[Tensor]:
        """Layer by layer the prompts' keys, or values, beside each other, with room for more."""
        return [
            torch.cat([pad(one, (0, 0, 0, self._end + self._room - one.shape[2])) for one in layer])
            for layer in zip(*of_prompts, strict=True)
        ]

    def _keep(self, rows: list[int]) -> None:
        self._keys = [keys[rows] for keys in self._keys]
        self._values = [values[rows] for values in self._values]
        self._positions = self._positions[:, rows]
        self._writing = [self._writing[row] for row in rows]
        self._holds = None if self._holds is None else self._holds[rows]


def _into(keys: list[Tensor], values: list[Tensor]) -> _Attend:
    """Attention inside one prompt, which keeps what its layers answer."""

    def attend(_layer: int, queries: Tensor, new_keys: Tensor, new_values: Tensor) -> Tensor:
        keys.append(new_keys)
        values.append(new_values)
        return attend_causally(queries, new_keys, new_values)

    return attend


def _refuse_infinite(logits: Tensor, places: Sequence[str]) -> None:
    finite = logits.isfinite().all(1).tolist()
    if not all(finite):
        place = places[finite.index(False)]
        raise InputError(
            f"the model's logits for pair {place} are not finite: try float32",
            "score_not_finite",
            place,
        )


def _longer(prompt: Prompt, token: int) -> Prompt:
    return replace(
        prompt,
        ids=torch.cat([prompt.ids, prompt.ids.new_tensor([token])]),
        positions=torch.cat([prompt.positions, _next(prompt.positions)], dim=1),
    )


def _next(positions: Tensor) -> Tensor:
    """The position (axes, 1) behind all of these (axes, length)."""
    return (positions.max() + 1).expand(len(positions), 1)
