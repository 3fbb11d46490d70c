"""The visual enhancement: image tokens as extra keys and values of one feed-forward.

A layer whose state leaves the next token uncertain makes the next layer blend the image tokens
into its feed-forward, at most once a prompt (MemVR, RetLLM; methods §1.5, §2). The state is kept by
prompt, so each row of a batch is decided by itself.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from nightshift.models.engine.enhancement_formulas import (
    blend,
    correction,
    uncertainty,
    window_layers,
)
from nightshift.models.engine.family import Decoder
from nightshift.models.engine.protocol import Trace
from nightshift.models.engine.readout import head_logits
from nightshift.schema.errors import ModelError
from nightshift.schema.params import EnhancementParams

__all__ = ["Enhancement", "TriggerState", "effective", "enhanced", "trigger_layers"]


class TriggerState:
    """The triggers of one forward: which prompts fired, at which layer, how uncertain they were.

    Args:
        decoder: The language model.
        params: When the enhancement fires.
        may_fire: For each prompt, whether it has image tokens to blend in.
    """

    def __init__(
        self, decoder: Decoder, params: EnhancementParams, may_fire: Sequence[bool]
    ) -> None:
        self._decoder = decoder
        self._params = params
        self._may_fire = may_fire
        forced = params.trigger if isinstance(params.trigger, int) else None
        #: The layer at which each prompt fired.
        self.fired = [forced if can_fire else None for can_fire in may_fire]
        self._uncertainty: list[float | None] = [None] * len(may_fire)

    def pending(self) -> list[int]:
        """The prompts that may still fire."""
        return [
            i for i, can_fire in enumerate(self._may_fire) if can_fire and self.fired[i] is None
        ]

    def fired_at(self, layer: int) -> list[int]:
        """The prompts that fired at a layer."""
        return [i for i, fired_layer in enumerate(self.fired) if fired_layer == layer]

    def update(self, layer: int, prompts: Sequence[int], ends: Tensor) -> None:
        """Fire the prompts whose uncertainty exceeds gamma at this layer.

        Args:
            layer: Whose output `ends` is.
            prompts: Some of `pending()`.
            ends: (n, width) state at the end of each of them.
        """
        if self._params.lens_norm == "final":
            ends = self._decoder.norm(ends)
        logits = head_logits(self._decoder.head_weight, ends)
        measured = uncertainty(logits, self._params.top_k)
        for prompt, u in zip(prompts, measured.tolist(), strict=True):
            if u > self._params.gamma:
                self.fired[prompt], self._uncertainty[prompt] = layer, u
            else:
                self._uncertainty[prompt] = max(u, self._uncertainty[prompt] or 0.0)

    def traces(self) -> list[Trace]:
        """The trace of each prompt."""
        return [
            Trace(fired=layer is not None, layer=layer, uncertainty=u)
            for layer, u in zip(self.fired, self._uncertainty, strict=True)
        ]


class Enhancement:
    """The enhancement of one forward of complete prompts.

    Args:
        decoder: The language model.
        params: When and how it acts.
        memories: Image tokens Z of each row (n, width); None where the prompt has no image.
        lengths: Tokens of each row; beyond them is padding.
    """

    def __init__(
        self,
        decoder: Decoder,
        params: EnhancementParams,
        memories: Sequence[Tensor | None],
        lengths: Sequence[int],
    ) -> None:
        self._decoder = decoder
        self._params = params
        self._memories = memories
        self._lengths = lengths
        self._triggers = TriggerState(decoder, params, [memory is not None for memory in memories])

    def traces(self) -> list[Trace]:
        """The trace of each row."""
        return self._triggers.traces()

    def update(self, layer: int, states: Tensor) -> None:
        """Fire the rows that are uncertain at this layer and have not fired yet.

        Args:
            layer: Whose output `states` is.
            states: (batch, length, width).
        """
        if rows := self._triggers.pending():
            ends = states[rows, [self._lengths[i] - 1 for i in rows]]
            self._triggers.update(layer, rows, ends)

    def inject(self, layer: int, x: Tensor, plain: Tensor) -> Tensor | None:
        """Blend the image tokens into the feed-forward of the rows that fired at `layer`.

        Args:
            layer: The one before this feed-forward's.
            x: (batch, length, width) its input.
            plain: (batch, length, width) its output.

        Returns:
            None where no row fired; else a copy in which all other rows are bit-identical.
        """
        rows = self._triggers.fired_at(layer)
        if not rows:
            return None
        params, output = self._params, plain.clone()
        gate_size = self._decoder.gate_sizes[layer + 1]
        for row in rows:
            # Behind its length a row is padding.
            memory, prompt = self._memories[row], slice(self._lengths[row])
            assert memory is not None
            delta = correction(x[row, prompt], memory, gate_size, params.activation)
            output[row, prompt] = blend(plain[row, prompt], delta, params.alpha, params.norm_match)
        return output


def effective(params: EnhancementParams) -> EnhancementParams:
    """The parameters, with the trigger `never` where alpha 0 changes nothing."""
    return params if params.alpha else params.model_copy(update={"trigger": "never"})


def trigger_layers(params: EnhancementParams, n_layers: int) -> range:
    """The layers at which a prompt may fire.

    Raises:
        ModelError: The forced layer has none after it.
    """
    if params.trigger == "never":
        return range(0)
    if params.trigger == "entropy":
        return window_layers(params.window, n_layers)
    if params.trigger + 1 >= n_layers:
        raise ModelError(
            f"the enhancement cannot be forced at layer {params.trigger}: the model has {n_layers} "
            f"layers, so choose 0 to {n_layers - 2}"
        )
    return range(params.trigger, params.trigger + 1)


@contextmanager
def enhanced(
    decoder: Decoder,
    params: EnhancementParams,
    memories: Sequence[Tensor | None],
    lengths: Sequence[int],
) -> Iterator[Enhancement]:
    """Hook the enhancement into the decoder for one forward; the hooks are always removed.

    Where it cannot act nothing is hooked, and only layers of the window compute uncertainties.

    Args:
        decoder: The language model.
        params: When and how the enhancement acts.
        memories: Image tokens Z of each row (n, width); None where there are none.
        lengths: Tokens of each row, which is padded on the right.

    Raises:
        ModelError: The forced layer has none after it.
    """
    params = effective(params)
    state = Enhancement(decoder, params, memories, lengths)
    with ExitStack() as hooks:
        for layer in trigger_layers(params, len(decoder.layers)):
            if params.trigger == "entropy":
                hooks.enter_context(_hook(decoder.layers[layer], _update(state, layer)))
            hooks.enter_context(_hook(decoder.feed_forwards[layer + 1], _inject(state, layer)))
        yield state


@contextmanager
def _hook(module: nn.Module, function: Any) -> Iterator[None]:  # noqa: ANN401 - torch's own type
    handle = module.register_forward_hook(function)
    try:
        yield
    finally:
        handle.remove()


def _update(state: Enhancement, layer: int) -> Any:  # noqa: ANN401 - as above
    def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        state.update(layer, output)

    return hook


def _inject(state: Enhancement, layer: int) -> Any:  # noqa: ANN401 - as above
    def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        return state.inject(layer, inputs[0], output)

    return hook
