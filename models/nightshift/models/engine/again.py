"""The visual enhancement over a generation: decided anew with every token, from one memory."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nightshift.models.engine.enhancement import Enhancement, effective, trigger_layers
from nightshift.models.engine.family import Decoder, VisualTokens
from nightshift.models.engine.prompts import Prompt
from nightshift.models.scorer import Trace
from nightshift.schema.runs import EnhancementParams

__all__ = ["Again"]


class Again:
    """What the enhancement does while a prompt is read, and with each token behind it.

    The memory is that of the prompt: a token that was written is no picture (methods §1.11).

    Args:
        decoder: The language model.
        params: When and how it acts.
        prompt: What is continued.
        seen: Visual tokens of the distinct pictures.
    """

    def __init__(
        self,
        decoder: Decoder,
        params: EnhancementParams,
        prompt: Prompt,
        seen: Sequence[VisualTokens],
    ) -> None:
        self._decoder = decoder
        self._params = effective(params)
        self._window = trigger_layers(self._params, len(decoder.layers))
        self._memory: Tensor | None = None
        if prompt.pictures:
            self._memory = torch.cat([seen[i].tokens for i in prompt.pictures])
        self._states: list[Enhancement] = []
        #: Over the vocabulary, where the first token was chosen.
        self.logsumexp: float | None = None

    @property
    def trace(self) -> Trace:
        """What it did while the prompt itself was read."""
        if not self._states:
            return Trace(fired=False, layer=None, uncertainty=None)
        (trace,) = self._states[0].traces()
        return trace

    def begin(self, embedded: Tensor) -> None:
        """A forward begins, over embeddings (1, length, width)."""
        if not self._states and self._params.memory == "all":
            self._memory = embedded[0].clone()
        state = Enhancement(self._decoder, self._params, [self._memory], [embedded.shape[1]])
        # The first is kept for its trace.
        self._states = [*self._states[:1], state]

    def chosen(self, logits: Tensor) -> None:
        """A token was chosen by logits (1, vocabulary)."""
        if self.logsumexp is None:
            self.logsumexp = float(logits.logsumexp(1))

    def injected(self, layer: int, x: Tensor, plain: Tensor) -> Tensor:
        """The output of a layer's feed-forward, with the memory where the layer before fired."""
        if layer - 1 not in self._window:
            return plain
        found = self._states[-1].inject(layer - 1, x, plain)
        return plain if found is None else found

    def look(self, layer: int, states: Tensor) -> None:
        """Decide, from the stream (1, length, width) behind a layer."""
        if layer in self._window and self._params.trigger == "entropy":
            self._states[-1].look(layer, states)
