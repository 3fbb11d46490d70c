"""The visual enhancement over a generation: decided anew with every token, from one memory."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nightshift.models.engine.enhancement import Enhancement, effective, trigger_layers
from nightshift.models.engine.family import Decoder, VisualTokens
from nightshift.models.engine.prompts import Prompt
from nightshift.models.engine.protocol import Trace
from nightshift.schema.params import EnhancementParams

__all__ = ["DecodingEnhancement"]


class DecodingEnhancement:
    """What the enhancement does while prompts are read, and with each token behind them.

    The memory is that of the prompt: a token that was written is no picture (methods §1.11).

    Args:
        decoder: The language model.
        params: When and how it acts.
        prompts: What is continued.
        seen: Visual tokens of the distinct pictures.
    """

    def __init__(
        self,
        decoder: Decoder,
        params: EnhancementParams,
        prompts: Sequence[Prompt],
        seen: Sequence[VisualTokens],
    ) -> None:
        self._decoder = decoder
        self._params = effective(params)
        self._window = trigger_layers(self._params, len(decoder.layers))
        self._memories = [
            torch.cat([seen[i].tokens for i in prompt.memory]) if prompt.memory else None
            for prompt in prompts
        ]
        #: What it did while each prompt itself was read.
        self.traces: list[Trace] = [Trace(fired=False, layer=None, uncertainty=None)] * len(prompts)
        #: Over the vocabulary, where the first token of each prompt was chosen.
        self.logsumexps: list[float] = []

    def begin(self, embedded: Tensor, prompts: Sequence[int], *, reading: bool) -> None:
        """A forward begins.

        Args:
            embedded: (n, length, width) of these prompts, or of a token behind each.
            prompts: Which.
            reading: Whether they are read themselves.
        """
        if reading and self._params.memory == "all":
            for prompt, states in zip(prompts, embedded, strict=True):
                self._memories[prompt] = states.clone()
        self._prompts, self._reading = prompts, reading
        self._state = Enhancement(
            self._decoder,
            self._params,
            [self._memories[prompt] for prompt in prompts],
            [embedded.shape[1]] * len(prompts),
        )

    def end(self) -> None:
        """A forward ended."""
        if self._reading:
            for prompt, trace in zip(self._prompts, self._state.traces(), strict=True):
                self.traces[prompt] = trace

    def chosen(self, logits: Tensor) -> None:
        """Tokens were chosen by logits (n, vocabulary), at first of all prompts."""
        if not self.logsumexps:
            self.logsumexps = logits.logsumexp(1).tolist()

    def injected(self, layer: int, x: Tensor, plain: Tensor) -> Tensor:
        """The output of a layer's feed-forward, with the memory where the layer before fired."""
        if layer - 1 not in self._window:
            return plain
        found = self._state.inject(layer - 1, x, plain)
        return plain if found is None else found

    def look(self, layer: int, states: Tensor) -> None:
        """Decide, from the stream (n, length, width) behind a layer."""
        if layer in self._window and self._params.trigger == "entropy":
            self._state.look(layer, states)
