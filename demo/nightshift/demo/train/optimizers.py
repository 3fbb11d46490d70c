"""The optimisers of both models: Muon inside the blocks, Adam for the rest, one schedule."""

from __future__ import annotations

import torch
from torch import nn

_WARM_UP_STEPS = 100
_FALLING_SHARE = 0.4
_LOWEST = 0.02


def muon_and_adam(
    model: nn.Module, *, matrix_rate: float, other_rate: float
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, Adam for embeddings, norms and biases.

    Muon reached a given caption loss in about two thirds of Adam's steps here.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, weight in model.named_parameters():
        inside = weight.ndim == 2 and "embed" not in name
        (matrices if inside else others).append(weight)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(
            matrices, lr=matrix_rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=other_rate, betas=(0.9, 0.98), weight_decay=0.01),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["full_rate"] = group["lr"]
    return optimizers


def scale_rates(optimizers: list[torch.optim.Optimizer], step: int, passed: float) -> None:
    """Set the rates: a short warm-up, a plateau, a straight fall once most time has `passed`."""
    scale = min(1.0, (step + 1) / _WARM_UP_STEPS, max(_LOWEST, (1 - passed) / _FALLING_SHARE))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["full_rate"] * scale
