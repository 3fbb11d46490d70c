"""Visual enhancement: image tokens as extra keys and values of one feed-forward (MemVR, RetLLM).

`FFN(x ∝ Z) = α·Δ + (1 − α)·FFN(x)` with `Δ = φ(x Zᵀ) Z` (arXiv 2602.22278 §fine stage; methods
§1.5, §2). A layer whose state leaves the next token uncertain makes the next layer look again at
the picture; at most once a prompt. The state is kept by prompt, so a batch decides row by row.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nightshift.models.engine.family import Decoder
from nightshift.models.engine.protocol import Trace
from nightshift.models.engine.readout import head_logits
from nightshift.schema.errors import ModelError
from nightshift.schema.params import EnhancementParams

__all__ = [
    "Enhancement",
    "TriggerState",
    "blend",
    "correction",
    "effective",
    "enhanced",
    "trigger_layers",
    "uncertainty",
    "window_layers",
]


def uncertainty(logits: Tensor, top_k: int) -> Tensor:
    """Entropy of the `top_k` most likely tokens over its maximum, `−Σ p ln p / ln k`.

    Args:
        logits: float32 (n, vocabulary).
        top_k: At least 2.

    Returns:
        float32 (n,) in [0, 1].
    """
    k = min(top_k, logits.shape[1])
    log_p = logits.topk(k, dim=1).values.log_softmax(dim=1)
    entropy = -(log_p.exp() * log_p).sum(dim=1)
    # Rounding may exceed the maximum, and gamma = 1 means never.
    return (entropy / torch.tensor(float(k)).log().to(entropy.device)).clamp(0, 1)


def correction(x: Tensor, memory: Tensor, gate_size: float, activation: str) -> Tensor:
    """`Δ = φ(x Kᵀ) Z` with `K = (mean|W_gate| / mean|Z|)·Z`.

    The published code scales the values too; that scale cancels in `blend`.

    Args:
        x: (length, width) input of the feed-forward.
        memory: (n, width) image tokens Z.
        gate_size: mean|W_gate| of the layer.
        activation: φ, `silu` or `identity`.

    Returns:
        float32 (length, width); zero where the memory is zero.
    """
    z = memory.float()
    size = z.abs().mean()
    keys = z * torch.where(size > 0, gate_size / size, 0.0)
    match = x.float() @ keys.T
    return (functional.silu(match) if activation == "silu" else match) @ z


def blend(plain: Tensor, delta: Tensor, alpha: float, norm_match: str) -> Tensor:
    """`(1 − α)·F + α·Δ̂`, with Δ̂ brought to the size of F.

    Args:
        plain: (length, width) F, output of the feed-forward.
        delta: float32 (length, width) Δ.
        alpha: α.
        norm_match: `position` compares mean absolute values position by position, so the result
            does not depend on what else is in the prompt; `sequence`, as published, over all.

    Returns:
        (length, width) in F's type; F itself, bit for bit, where Δ is zero.
    """
    f = plain.float()
    dims = (1,) if norm_match == "position" else (0, 1)
    size = delta.abs().mean(dim=dims, keepdim=True)
    matched = delta / size * f.abs().mean(dim=dims, keepdim=True)
    return torch.where(size > 0, (1 - alpha) * f + alpha * matched, f).to(plain.dtype)


def window_layers(window: tuple[float, float], n_layers: int) -> range:
    """The layers whose state may trigger: strictly inside the window, with a layer after them.

    Args:
        window: Exclusive bounds; as fractions of the depth, or as layers where the upper one
            exceeds 1.
        n_layers: Depth of the decoder.

    Returns:
        By fractions not empty if there are two layers: in a shallow model the one nearest to the
        window. By layers just those, if there are any.
    """
    scale = 1 if window[1] > 1 else n_layers
    low, high = (bound * scale for bound in window)
    inside = [layer for layer in range(n_layers - 1) if low + 1e-6 < layer < high - 1e-6]
    if inside:
        return range(inside[0], inside[-1] + 1)
    if window[1] > 1:
        return range(0)
    nearest = max(0, min(n_layers - 2, round((low + high) / 2)))
    return range(nearest, min(nearest + 1, n_layers - 1))


class TriggerState:
    """Which prompts of a forward have fired, where, and how uncertain they were.

    Args:
        decoder: The language model.
        params: When it fires.
        watched: Which prompts have anything to look at again.
    """

    def __init__(
        self, decoder: Decoder, params: EnhancementParams, watched: Sequence[bool]
    ) -> None:
        self._decoder = decoder
        self._params = params
        self._watched = watched
        forced = params.trigger if isinstance(params.trigger, int) else None
        #: The layer at which each prompt fired.
        self.fired = [forced if one else None for one in watched]
        self._uncertainty: list[float | None] = [None] * len(watched)

    def undecided(self) -> list[int]:
        """Prompts that may still fire."""
        return [i for i, one in enumerate(self._watched) if one and self.fired[i] is None]

    def at(self, layer: int) -> list[int]:
        """Prompts that fired at a layer."""
        return [i for i, one in enumerate(self.fired) if one == layer]

    def look(self, layer: int, prompts: Sequence[int], last: Tensor) -> None:
        """Fire the undecided prompts that are uncertain here.

        Args:
            layer: Whose output `last` is.
            prompts: Some of `undecided()`.
            last: (n, width) state at the end of each of them.
        """
        if self._params.lens_norm == "final":
            last = self._decoder.norm(last)
        seen = uncertainty(head_logits(self._decoder.head_weight, last), self._params.top_k)
        for prompt, u in zip(prompts, seen.tolist(), strict=True):
            if u > self._params.gamma:
                self.fired[prompt], self._uncertainty[prompt] = layer, u
            else:
                self._uncertainty[prompt] = max(u, self._uncertainty[prompt] or 0.0)

    def traces(self) -> list[Trace]:
        """What happened to each prompt."""
        return [
            Trace(fired=layer is not None, layer=layer, uncertainty=u)
            for layer, u in zip(self.fired, self._uncertainty, strict=True)
        ]


class Enhancement:
    """What the enhancement does in one forward of whole prompts.

    Args:
        decoder: The language model.
        params: When and how it acts.
        memories: Z of each row (n, width); None where the prompt holds no picture.
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
        self._watch = TriggerState(decoder, params, [memory is not None for memory in memories])

    def traces(self) -> list[Trace]:
        """What happened to each row."""
        return self._watch.traces()

    def look(self, layer: int, states: Tensor) -> None:
        """Arm the next layer for rows that are uncertain here and have not fired yet.

        Args:
            layer: Whose output `states` is.
            states: (batch, length, width).
        """
        if rows := self._watch.undecided():
            last = states[rows, [self._lengths[i] - 1 for i in rows]]
            self._watch.look(layer, rows, last)

    def inject(self, layer: int, x: Tensor, plain: Tensor) -> Tensor | None:
        """The feed-forward's output with the memory of the rows that `layer` fired.

        Args:
            layer: The one before this feed-forward's.
            x: (batch, length, width) its input.
            plain: (batch, length, width) its output.

        Returns:
            None where no row fired; else a copy in which all other rows are bit-identical.
        """
        rows = self._watch.at(layer)
        if not rows:
            return None
        params, output = self._params, plain.clone()
        gate_size = self._decoder.gate_sizes[layer + 1]
        for row in rows:
            memory, real = self._memories[row], slice(self._lengths[row])
            assert memory is not None
            delta = correction(x[row, real], memory, gate_size, params.activation)
            output[row, real] = blend(plain[row, real], delta, params.alpha, params.norm_match)
        return output


def effective(params: EnhancementParams) -> EnhancementParams:
    """The same, with a trigger that says `never` where nothing could change."""
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
    """Hook the enhancement into the decoder for one forward; the hooks always come off again.

    Where it cannot act nothing is hooked at all, and only layers of the window pay for the lens.

    Args:
        decoder: The language model.
        params: When and how the enhancement acts.
        memories: Z of each row (n, width); None where there is none.
        lengths: Tokens of each row, which is padded on the right.

    Raises:
        ModelError: The forced layer has none after it.
    """
    params = effective(params)
    state = Enhancement(decoder, params, memories, lengths)
    with ExitStack() as hooks:
        for layer in trigger_layers(params, len(decoder.layers)):
            if params.trigger == "entropy":
                hooks.enter_context(_hook(decoder.layers[layer], _look(state, layer)))
            hooks.enter_context(_hook(decoder.feed_forwards[layer + 1], _inject(state, layer)))
        yield state


@contextmanager
def _hook(module: nn.Module, function: Any) -> Iterator[None]:  # noqa: ANN401 - torch's own type
    handle = module.register_forward_hook(function)
    try:
        yield
    finally:
        handle.remove()


def _look(state: Enhancement, layer: int) -> Any:  # noqa: ANN401 - as above
    def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        state.look(layer, output)

    return hook


def _inject(state: Enhancement, layer: int) -> Any:  # noqa: ANN401 - as above
    def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        return state.inject(layer, inputs[0], output)

    return hook
