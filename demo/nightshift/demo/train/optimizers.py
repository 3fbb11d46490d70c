"""Optimizers of both models: Muon inside the blocks, Adam elsewhere, one schedule."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_WARM_UP_STEPS = 100
_FALLING_SHARE = 0.4
_LOWEST = 0.02
_MOMENTUM = 0.95
_MATCHED_RMS = 0.2  # of Adam's usual step
_MATRIX_DECAY = 0.05


class Muon(torch.optim.Optimizer):
    """Muon (Jordan 2024) in float32, matrices of one shape in one batch.

    PyTorch's own orthogonalises in bfloat16, one matrix at a time: on a processor without it
    that is a third of a step.
    """

    def __init__(self, matrices: list[nn.Parameter], *, rate: float) -> None:
        super().__init__(matrices, {"lr": rate})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Move every matrix along its orthogonalised momentum."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape.setdefault(weight.shape, []).append(weight)
            for shape, weights in by_shape.items():
                moves = _orthogonal(torch.stack([self._momentum(weight) for weight in weights]))
                rate = group["lr"] * _MATCHED_RMS * max(shape) ** 0.5
                for weight, move in zip(weights, moves, strict=True):
                    weight.mul_(1 - group["lr"] * _MATRIX_DECAY).sub_(move, alpha=rate)

    def _momentum(self, weight: nn.Parameter) -> Tensor:
        assert weight.grad is not None
        held: Tensor = self.state[weight].setdefault("held", torch.zeros_like(weight))
        held.lerp_(weight.grad, 1 - _MOMENTUM)
        return weight.grad.lerp(held, _MOMENTUM)


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
        Muon(matrices, rate=matrix_rate),
        torch.optim.AdamW(others, lr=other_rate, betas=(0.9, 0.98), weight_decay=0.01),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["full_rate"] = group["lr"]
    return optimizers


def half_precision() -> torch.autocast:
    """bfloat16 where the processor multiplies it in hardware; elsewhere it is slower by far."""
    return torch.autocast(
        "cpu", dtype=torch.bfloat16, enabled=torch.cpu.get_capabilities().get("avx512_bf16", False)
    )


def scale_rates(optimizers: list[torch.optim.Optimizer], step: int, passed: float) -> None:
    """Set the rates: a short warm-up, a plateau, a straight fall once most time has `passed`."""
    scale = min(1.0, (step + 1) / _WARM_UP_STEPS, max(_LOWEST, (1 - passed) / _FALLING_SHARE))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["full_rate"] * scale


def _orthogonal(matrices: Tensor) -> Tensor:
    """The nearest orthogonal matrices, about: five steps of Newton and Schulz."""
    tall = matrices.shape[1] > matrices.shape[2]
    x: Tensor = matrices.mT if tall else matrices
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(5):
        squared = x @ x.mT
        x = 3.4445 * x + (-4.775 * squared + 2.0315 * squared @ squared) @ x
    return x.mT if tall else x
