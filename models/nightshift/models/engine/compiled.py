"""`torch.compile` for what a decoder spends its time on beside matrix products."""

from collections.abc import Iterator

import torch
from torch import nn

from nightshift.models.engine.family import Decoder
from nightshift.schema.errors import ModelError

__all__ = ["compile_layers"]


def compile_layers(decoder: Decoder) -> None:
    """Compile norms and feed-forwards, in place; the first forward then takes many seconds longer.

    Hooks stay outside of what is compiled. Mixtures of experts are left as they are: which expert
    sees a token is decided by the data.

    Args:
        decoder: Of a loaded model; layers of one shape share what is compiled.

    Raises:
        ModelError: Nothing can be compiled on this machine.
    """
    for module in _parts(decoder):
        module.forward = torch.compile(module.forward, dynamic=True)
    weight = decoder.head_weight
    states = torch.zeros(1, 2, weight.shape[1], dtype=weight.dtype, device=weight.device)
    try:
        with torch.inference_mode():
            decoder.feed_forwards[0](states)
    except RuntimeError as error:
        raise ModelError(
            f"torch.compile does not work here: {str(error).splitlines()[0]}; install a C++ "
            "compiler (and Triton for a GPU), or unset NIGHTSHIFT_COMPILE"
        ) from error


def _parts(decoder: Decoder) -> Iterator[nn.Module]:
    for layer, feed_forward in zip(decoder.layers, decoder.feed_forwards, strict=True):
        yield from (child for name, child in layer.named_children() if name.endswith("layernorm"))
        if hasattr(feed_forward, "gate_proj"):
            yield feed_forward
