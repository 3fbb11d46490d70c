"""Sizes of jobs: about 10 s of measured work, but enough jobs for several workers."""

from collections.abc import Iterable, Iterator
from typing import Literal

from nightshift.schema.messages import BlockPayload, ScorePayload

__all__ = ["block_jobs", "job_size", "score_jobs"]

_TARGET_S = 10.0
_MIN_JOBS = 12
_SMALLEST = 32
_LARGEST = 4096


def job_size(n_units: int, units_per_s: float | None) -> int:
    """Units a job: `_TARGET_S` at the measured rate, at least `_MIN_JOBS` jobs where that pays.

    Args:
        n_units: Units of the whole stage.
        units_per_s: Of one worker, measured; None before the first run with a model.
    """
    by_time = int(units_per_s * _TARGET_S) if units_per_s else 256
    by_share = -(-n_units // _MIN_JOBS)
    return max(_SMALLEST, min(by_time, by_share, _LARGEST))


def block_jobs(ids: Iterable[int], size: int) -> Iterator[BlockPayload]:
    """Blocks of at most `size` ids, in the order given."""
    block: list[int] = []
    for unit_id in ids:
        block.append(unit_id)
        if len(block) == size:
            yield BlockPayload(ids=tuple(block))
            block = []
    if block:
        yield BlockPayload(ids=tuple(block))


def score_jobs(
    groups: Iterable[tuple[int, list[int]]],
    size: int,
    shared_side: Literal["query", "candidate"],
    *,
    lists: bool = False,
    asks: Literal["score", "ties"] = "score",
) -> Iterator[ScorePayload]:
    """Jobs of about `size` pairs; a group is cut only where it alone is larger than a job.

    Args:
        groups: (id on the shared side, ids on the other side).
        size: Pairs of a job; no list is longer.
        shared_side: As in the payload.
        lists: As in the payload.
        asks: As in the payload.
    """

    def job() -> ScorePayload:
        return ScorePayload(shared_side=shared_side, groups=tuple(batch), lists=lists, asks=asks)

    batch: list[tuple[int, tuple[int, ...]]] = []
    n_pairs = 0
    for shared, others in groups:
        for start in range(0, len(others), size):
            part = tuple(others[start : start + size])
            if batch and n_pairs + len(part) > size:
                yield job()
                batch, n_pairs = [], 0
            batch.append((shared, part))
            n_pairs += len(part)
    if batch:
        yield job()
