"""Layers like Llama's, taken apart; most decoders inside multimodal models have them."""

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.models.llama.modeling_llama import rotate_half

from nightshift.models.engine.family import Rotary

__all__ = ["LlamaLayerOps", "no_layer_ops_reason"]

# transformers' names of decoders that differ from Llama by biases, norms of queries and keys, the
# axes of their rotary positions, and what is inside a feed-forward; nothing else.
_LIKE_LLAMA = {
    "llama",
    "mistral",
    "qwen2",
    "qwen2_5_vl_text",
    "qwen2_vl_text",
    "qwen3",
    "qwen3_moe",
    "qwen3_vl_moe_text",
    "qwen3_vl_text",
}


def no_layer_ops_reason(config: PreTrainedConfig) -> str | None:
    """The reason why a decoder's layers cannot be run one by one; None where they can.

    Args:
        config: Of the language model.
    """
    if config.model_type not in _LIKE_LLAMA:
        return f"layers of {config.model_type} are not like Llama's"
    # A window of attention would have to be cut across prefix and suffix.
    if "sliding_attention" in (getattr(config, "layer_types", None) or []) or (
        config.model_type == "mistral" and config.sliding_window is not None
    ):
        return "some layers attend to a window"
    if (config.rope_parameters or {}).get("rope_type") == "longrope":
        return "its rotary positions depend on the length of the prompt"
    return None


class LlamaLayerOps:
    """A `LayerOps`: the modules of the model's own layers, in their order.

    Args:
        language: A decoder for which `no_layer_ops_reason` has no reason.
    """

    def __init__(self, language: nn.Module) -> None:
        loosely: Any = language  # torch types a module's parts loosely
        self._layers: list[Any] = list(loosely.layers)
        self._rotary = loosely.rotary_emb
        # Qwen3 norms queries and keys, each head by itself.
        self._norms_heads = hasattr(self._layers[0].self_attn, "q_norm")

    def rotary(self, states: Tensor, positions: Tensor) -> Rotary:
        """See `LayerOps`."""
        positions = positions.to(states.device)
        cos, sin = self._rotary(states, positions if len(positions) > 1 else positions[0])
        return cos, sin

    def attention_input(self, layer: int, states: Tensor) -> Tensor:
        """See `LayerOps`."""
        normed: Tensor = self._layers[layer].input_layernorm(states)
        return normed

    def queries(self, layer: int, normed: Tensor, rotary: Rotary) -> Tensor:
        """See `LayerOps`."""
        attention = self._layers[layer].self_attn
        heads = _heads(attention.q_proj(normed), attention.head_dim)
        return _rotated(attention.q_norm(heads) if self._norms_heads else heads, rotary)

    def keys_values(self, layer: int, normed: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
        """See `LayerOps`."""
        attention = self._layers[layer].self_attn
        keys = _heads(attention.k_proj(normed), attention.head_dim)
        values = _heads(attention.v_proj(normed), attention.head_dim)
        return _rotated(attention.k_norm(keys) if self._norms_heads else keys, rotary), values

    def add_attention(self, layer: int, states: Tensor, heads: Tensor) -> Tensor:
        """See `LayerOps`."""
        output: Tensor = self._layers[layer].self_attn.o_proj(heads.transpose(1, 2).flatten(2))
        return output.add_(states)

    def feed_forward_input(self, layer: int, states: Tensor) -> Tensor:
        """See `LayerOps`."""
        normed: Tensor = self._layers[layer].post_attention_layernorm(states)
        return normed


def _heads(projected: Tensor, width: int) -> Tensor:
    heads: Tensor = projected.unflatten(2, (-1, width)).transpose(1, 2)
    return heads


def _rotated(heads: Tensor, rotary: Rotary) -> Tensor:
    cos, sin = rotary
    turned: Tensor = rotate_half(heads)
    return (heads * cos[:, None]).addcmul_(turned, sin[:, None])
