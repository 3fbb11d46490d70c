"""Helpers for the readings of engines."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from nightshift.models.engine.protocol import Engine, Group, Reading
from nightshift.schema.params import EnhancementParams
from nightshift.scoring.prompts import Labels

LABELS = Labels(positive="True", negative="False")
OFF = EnhancementParams(trigger="never")
ON = EnhancementParams()


def score(engine: Engine, groups: Sequence[Group], params: EnhancementParams) -> list[Reading]:
    """Readings of all suffixes, group after group."""
    readings = engine.score(engine.prepare(groups), labels=LABELS, enhancement=params)
    return [reading for group in readings for reading in group]


def numbers(readings: Sequence[Reading]) -> np.ndarray:
    """(n, 4): both labels, log-sum-exp, entropy."""
    return np.array([[*r.label_logits, r.logsumexp, r.entropy] for r in readings])


def assert_same(readings: Sequence[Reading], expected: Sequence[Reading]) -> None:
    """The same numbers to 1e-5, and the same trace."""
    assert numbers(readings) == pytest.approx(numbers(expected), abs=1e-5)
    for result, other in zip(readings, expected, strict=True):
        assert (result.trace.fired, result.trace.layer) == (other.trace.fired, other.trace.layer)
        assert result.trace.uncertainty == pytest.approx(other.trace.uncertainty, abs=1e-5)


def between(observed: Sequence[float | None], share: float) -> float:
    """A gamma in the widest gap near that share of the uncertainties, far from rounding."""
    results = np.sort([u for u in observed if u is not None])
    middle = int(len(results) * share)
    gaps = np.diff(results)[middle - 2 : middle + 2]
    at = middle - 2 + int(gaps.argmax())
    assert gaps.max() > 1e-5
    return float(results[at : at + 2].mean())


@contextmanager
def watching(modules: Sequence[nn.Module]) -> Iterator[list[list[tuple[Tensor, Tensor]]]]:
    """(input, output) of each call of each module."""
    recorded: list[list[tuple[Tensor, Tensor]]] = [[] for _ in modules]

    def hook(calls: list[tuple[Tensor, Tensor]]) -> Any:
        return lambda _m, inputs, output: calls.append((inputs[0].clone(), output.clone()))

    handles = [
        m.register_forward_hook(hook(calls)) for m, calls in zip(modules, recorded, strict=True)
    ]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()
