"""The formulas of the visual enhancement (MemVR, RetLLM): uncertainty, correction, blending.

`FFN(x ∝ Z) = α·Δ + (1 − α)·FFN(x)` with `Δ = φ(x Zᵀ) Z` (arXiv 2602.22278 §fine stage; methods
§1.5, §2).
"""

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["blend", "correction", "uncertainty", "window_layers"]


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
    """The layers whose state may trigger: strictly inside the window, and not the last one.

    Args:
        window: Exclusive bounds; as fractions of the depth, or as layers where the upper one
            exceeds 1.
        n_layers: Depth of the decoder.

    Returns:
        Given as fractions, at least one layer if the model has two: in a shallow model the one
        nearest to the window. Given as layers, exactly those; the range may be empty.
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
