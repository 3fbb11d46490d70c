"""Attention inside one sequence, on whichever kernel the device has for it."""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

__all__ = ["attend_causally", "attend_masked"]


def attend_causally(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Causal attention: each position attends to itself and those before it.

    Args:
        queries: (batch, heads, length, head width).
        keys: The same with fewer heads, each for as many of the queries'.
        values: As the keys.
    """
    grouped = True
    if queries.is_cuda and queries.dtype == torch.float32:
        # CUDA's fast kernel for float32 takes no groups; the other one writes all scores out.
        keys, values = (_ungrouped(heads, queries.shape[1]) for heads in (keys, values))
        grouped = False
    return scaled_dot_product_attention(queries, keys, values, is_causal=True, enable_gqa=grouped)


def attend_masked(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Masked attention: each position attends to those that the mask allows.

    Query heads of the same keys stand one behind the other, as if they were positions: with a mask,
    groups of heads would leave CUDA's fast kernels.

    Args:
        queries: (batch, heads, length, head width).
        keys: (batch, fewer heads, other length, head width), each head for as many of the queries'.
        values: As the keys.
        mask: (batch or 1, 1, length, other length), bool or additive; None where all is seen.
    """
    folded = queries.unflatten(1, (keys.shape[1], -1)).flatten(2, 3)
    if mask is not None:
        mask = mask.repeat(1, 1, folded.shape[2] // mask.shape[2], 1)
    heads = scaled_dot_product_attention(folded, keys, values, attn_mask=mask)
    return heads.reshape(queries.shape)


def _ungrouped(heads: Tensor, n_heads: int) -> Tensor:
    return heads.repeat_interleave(n_heads // heads.shape[1], dim=1)
