"""How many units a job holds: about 10 s of measured work, but enough jobs for several workers."""

from collections.abc import Iterable, Iterator

from nightshift.schema.messages import BlockPayload, ScorePayload
from nightshift.stores.ledger.jobs import NewJob

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


def block_jobs(ids: Iterable[int], size: int) -> Iterator[NewJob]:
    """Blocks of at most `size` ids, in the order given."""
    block: list[int] = []
    for one in ids:
        block.append(one)
        if len(block) == size:
            yield _block(block)
            block = []
    if block:
        yield _block(block)


def score_jobs(
    groups: Iterable[tuple[int, list[int]]], size: int, shared_side: str, **how: object
) -> Iterator[NewJob]:
    """Jobs of about `size` pairs; a group is cut only where it alone is larger than a job.

    Args:
        groups: (id on the shared side, ids on the other side).
        size: Pairs of a job; no list is longer.
        shared_side: `query` or `candidate`.
        **how: Other fields of the payload.
    """
    batch: list[tuple[int, tuple[int, ...]]] = []
    pairs = 0
    for shared, others in groups:
        for start in range(0, len(others), size):
            part = tuple(others[start : start + size])
            if batch and pairs + len(part) > size:
                yield _score(batch, pairs, shared_side, how)
                batch, pairs = [], 0
            batch.append((shared, part))
            pairs += len(part)
    if batch:
        yield _score(batch, pairs, shared_side, how)


def _block(ids: list[int]) -> NewJob:
    return NewJob(payload=BlockPayload(ids=tuple(ids)).model_dump(mode="json"), n_units=len(ids))


def _score(
    groups: list[tuple[int, tuple[int, ...]]], pairs: int, shared_side: str, how: dict[str, object]
) -> NewJob:
    payload = ScorePayload.model_validate(
        {"shared_side": shared_side, "groups": tuple(groups), **how}
    )
    return NewJob(payload=payload.model_dump(mode="json"), n_units=pairs)
