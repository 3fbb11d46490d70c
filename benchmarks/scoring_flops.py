"""FLOPs of the two forwards, by hand: the check on what torch counts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2_5_VLConfig

__all__ = ["Lengths", "batched_flops", "flop_counter", "packed_flops"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Sizes of a case; all its prefixes have one length, and all its suffixes."""

    n_groups: int
    n_pairs: int
    prefix: int
    suffix: int
    #: That the vision tower looks at.
    n_images: int
    #: Visual tokens of an image's side.
    side: int


def flop_counter() -> FlopCounterMode:
    """Torch's counter, with our own formula for attention.

    Which attention torch counts depends on its version: torch 2.14 counts none on a CPU.
    """
    aten = torch.ops.aten
    # The operation itself, where it reaches the counter, else the kernel that it takes on a CPU.
    mapping = {
        aten.scaled_dot_product_attention: _attention,
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,  # noqa: SLF001 - as registered
    }
    return FlopCounterMode(display=False, custom_mapping=mapping)


def _attention(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: object, **__: object
) -> int:
    """Two matrix products over every query and key, in full whatever a mask leaves out."""
    *rows, n_queries, width = query
    return 2 * math.prod(rows) * n_queries * key[-2] * (width + value[-1])


def batched_flops(config: Qwen2_5_VLConfig, of: Lengths) -> int:
    """Every prompt whole, the head at its end; causal attention counted in full, as torch does."""
    text, length = config.text_config, of.prefix + of.suffix
    width, feed = text.hidden_size, text.intermediate_size
    layer = _linear(text) * length + 4 * width * length**2
    assert feed
    return _vision(config, of) + of.n_pairs * (
        text.num_hidden_layers * layer + 2 * width * text.vocab_size
    )


def packed_flops(config: Qwen2_5_VLConfig, of: Lengths) -> int:
    """The prefix once a group; in the last layer only what the ends of suffixes read."""
    text = config.text_config
    width, before_last = text.hidden_size, text.num_hidden_layers - 1
    recorded = of.prefix + of.suffix
    prefix = before_last * (_linear(text) * of.prefix + 4 * width * of.prefix**2)
    suffix = before_last * (_linear(text) * of.suffix + 4 * width * of.suffix * recorded)
    keys_values = _keys_values(text)
    end = _linear(text) - keys_values + 4 * width * recorded + 2 * width * text.vocab_size
    return (
        _vision(config, of)
        + of.n_groups * (prefix + keys_values * of.prefix)
        + of.n_pairs * (suffix + keys_values * of.suffix + end)
    )


def _linear(text) -> int:  # noqa: ANN001 - transformers leaves its type open
    """A layer's matrices, for one token."""
    width = text.hidden_size
    return 2 * (2 * width**2 + 3 * width * text.intermediate_size) + _keys_values(text)


def _keys_values(text) -> int:  # noqa: ANN001 - as above
    return 4 * text.hidden_size**2 * text.num_key_value_heads // text.num_attention_heads


def _vision(config: Qwen2_5_VLConfig, of: Lengths) -> int:
    tower = config.vision_config
    width, merged = tower.hidden_size, tower.spatial_merge_size**2
    patches = of.side**2 * merged
    # Squares of `window` visual tokens a side attend to themselves; those at the edge are cut.
    window = tower.window_size // tower.patch_size // tower.spatial_merge_size
    sides = [min(window, of.side - start) for start in range(0, of.side, window)]
    windowed = sum((rows * columns * merged) ** 2 for rows in sides for columns in sides)
    n_full = len(tower.fullatt_block_indexes)
    linear = 2 * patches * (4 * width**2 + 3 * width * tower.intermediate_size)
    attention = 4 * width * (n_full * patches**2 + (tower.depth - n_full) * windowed)
    pixels = tower.in_channels * tower.temporal_patch_size * tower.patch_size**2
    into = merged * width
    merger = 2 * patches // merged * into * (into + tower.out_hidden_size)
    embedding = 2 * patches * pixels * width
    return of.n_images * (tower.depth * linear + attention + embedding + merger)
