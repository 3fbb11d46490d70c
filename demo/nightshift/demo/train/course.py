"""A training as stages of steps, each for a span of processor time, that outlives its process."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import torch
from torch import nn

from nightshift.demo.train.optimizers import scale_rates

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStage:
    """One stage of a training, as the model card tells it.

    `curve` holds a point a check: `step`, the mean training losses since the last point, and what
    was measured on validation scenes.
    """

    name: str
    minutes: float
    curve: list[dict[str, float]]


@dataclass(slots=True, kw_only=True)
class _Progress:
    steps: int = 0
    passed: float = 0.0  # share of the stage's span
    curve: list[dict[str, float]] = field(default_factory=list)


class Course:
    """The stages of one model's training, kept in a file at every check.

    Begun again with the same file, it goes on from the last check: stages that had ended return at
    once. Their order and names must be the same.
    """

    def __init__(self, file: Path, **config: float) -> None:
        """Read the file, if there is one.

        Args:
            file: Where to keep it.
            **config: What the training depends on; a file of another configuration is not resumed,
                but overwritten.
        """
        self._file, self._config = file, config
        self._stages: dict[str, _Progress] = {}
        self._held: dict[str, Any] = {}
        if file.exists():
            kept = torch.load(file, weights_only=True)
            if kept["asked"] == config:
                self._stages = {name: _Progress(**item) for name, item in kept["stages"].items()}
                self._held = kept["held"]
                _log.info("going on from %s", file)
            else:
                _log.warning("%s is of a training with %s: begun again", file, kept["asked"])

    def stage(
        self,
        name: str,
        *,
        minutes: float,
        checks: int,
        rng: Random,
        modules: Sequence[nn.Module],
        optimizers: list[torch.optim.Optimizer],
        step: Callable[[float], Mapping[str, float]],
        check: Callable[[], Mapping[str, float]],
    ) -> TrainingStage:
        """Take steps until the span is over, or what is left of it; one at least of a new stage.

        Args:
            name: Of this stage alone.
            minutes: The span, in processor time.
            checks: How often to measure and keep it, the end included.
            rng: All that the steps draw from.
            modules: All that the optimizers change.
            optimizers: Their rates follow the one schedule.
            step: Takes one, given the share of the span that has passed; returns its losses.
            check: Measures on validation scenes.
        """
        if name in self._stages and name == list(self._stages)[-1]:
            self._restore(rng, modules, optimizers)
        now = self._stages.setdefault(name, _Progress())
        began = time.process_time() - now.passed * 60 * minutes
        losses: list[Mapping[str, float]] = []
        while now.passed < 1:
            scale_rates(optimizers, now.steps, now.passed)
            losses.append(step(now.passed))
            now.steps += 1
            now.passed = (time.process_time() - began) / (60 * minutes)
            if now.passed * checks >= len(now.curve) + 1 or now.passed >= 1:
                means = {kind: fmean(loss[kind] for loss in losses) for kind in losses[0]}
                now.curve.append({"step": now.steps, **means, **check()})
                _log.info("%s %s", name, {k: round(value, 4) for k, value in now.curve[-1].items()})
                losses.clear()
                self._keep(rng, modules, optimizers)
        return TrainingStage(name=name, minutes=minutes, curve=now.curve)

    def forget(self) -> None:
        """Delete the file: what was trained lies elsewhere."""
        self._file.unlink(missing_ok=True)

    def _keep(
        self, rng: Random, modules: Sequence[nn.Module], optimizers: list[torch.optim.Optimizer]
    ) -> None:
        kept = {
            "asked": self._config,
            "stages": {name: asdict(stage) for name, stage in self._stages.items()},
            "held": {
                "modules": [stage.state_dict() for stage in modules],
                "optimizers": [stage.state_dict() for stage in optimizers],
                "rng": rng.getstate(),
            },
        }
        self._file.parent.mkdir(parents=True, exist_ok=True)
        part = self._file.with_name(f"{self._file.name}.part")
        torch.save(kept, part)
        part.replace(self._file)

    def _restore(
        self, rng: Random, modules: Sequence[nn.Module], optimizers: list[torch.optim.Optimizer]
    ) -> None:
        rng.setstate(self._held["rng"])
        for module, state in zip(modules, self._held["modules"], strict=True):
            module.load_state_dict(state)
        for optimizer, state in zip(optimizers, self._held["optimizers"], strict=True):
            optimizer.load_state_dict(state)
