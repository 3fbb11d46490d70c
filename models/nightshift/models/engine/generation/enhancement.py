"""The visual enhancement while text is generated: decided for each token, from one memory."""

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
    """The enhancement while prompts are read, and with each token that is generated after them.

    The image tokens are the prompt's: a generated token is no image (methods §1.11).

    Args:
        decoder: The language model.
        params: When and how it acts.
        prompts: The prompts that are continued.
        visual_tokens: Of the distinct images.
    """

    def __init__(
        self,
        decoder: Decoder,
        params: EnhancementParams,
        prompts: Sequence[Prompt],
        visual_tokens: Sequence[VisualTokens],
    ) -> None:
        self._decoder = decoder
        self._params = effective(params)
        self._window = trigger_layers(self._params, len(decoder.layers))
        self._memories = [
            torch.cat([visual_tokens[i].tokens for i in prompt.memory]) if prompt.memory else None
            for prompt in prompts
        ]
        #: The trace of each prompt, from the forward that read it.
        self.traces: list[Trace] = [Trace(fired=False, layer=None, uncertainty=None)] * len(prompts)
        #: Log-sum-exp over the vocabulary where the first token of each prompt was chosen.
        self.logsumexps: list[float] = []

    def begin_forward(
        self, embedded: Tensor, prompts: Sequence[int], *, reads_prompts: bool
    ) -> None:
        """Prepare for a forward.

        Args:
            embedded: (n, length, width) of these prompts, or of one token behind each.
            prompts: Their indices.
            reads_prompts: Whether the forward reads the prompts themselves.
        """
        if reads_prompts and self._params.memory == "all":
            for prompt, states in zip(prompts, embedded, strict=True):
                self._memories[prompt] = states.clone()
        self._prompts, self._reads_prompts = prompts, reads_prompts
        self._state = Enhancement(
            self._decoder,
            self._params,
            [self._memories[prompt] for prompt in prompts],
            [embedded.shape[1]] * len(prompts),
        )

    def end_forward(self) -> None:
        """Keep the traces of the forward that read the prompts."""
        if self._reads_prompts:
            for prompt, trace in zip(self._prompts, self._state.traces(), strict=True):
                self.traces[prompt] = trace

    def record_choice(self, logits: Tensor) -> None:
        """Keep the log-sum-exp of the first logits (n, vocabulary), which are of all prompts."""
        if not self.logsumexps:
            self.logsumexps = logits.logsumexp(1).tolist()

    def blended(self, layer: int, x: Tensor, plain: Tensor) -> Tensor:
        """The output of a layer's feed-forward, blended where the layer before it fired.

        Args:
            layer: The feed-forward's.
            x: (n, length, width) its input.
            plain: (n, length, width) its output.
        """
        if layer - 1 not in self._window:
            return plain
        output = self._state.inject(layer - 1, x, plain)
        return plain if output is None else output

    def update(self, layer: int, states: Tensor) -> None:
        """Fire prompts by the output (n, length, width) of a layer."""
        if layer in self._window and self._params.trigger == "entropy":
            self._state.update(layer, states)
