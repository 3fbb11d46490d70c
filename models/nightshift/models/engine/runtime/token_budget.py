"""How many tokens one forward holds, and what happens when that was too many."""

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from nightshift.schema.errors import InputError

__all__ = ["TokenBudget"]

_T = TypeVar("_T")
#: Of memory that ran out below PyTorch's own allocator of a GPU, where errors have no type for it.
_SIGNS = (
    "can't allocate memory",
    "_ALLOC_FAILED",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_NOT_INITIALIZED",
)


class TokenBudget:
    """Runs work in batches of at most so many tokens; out of memory, in smaller ones.

    Args:
        tokens: At first. What did not fit once is not tried again.
        unit: What the work is made of, for messages.
    """

    def __init__(self, tokens: int, unit: str = "pair") -> None:
        self.tokens = tokens
        self._unit = unit

    def run(
        self,
        work: Sequence[_T],
        split: Callable[[Sequence[_T], int], Iterator[list[_T]]],
        forward: Callable[[list[_T]], None],
        alone: Callable[[list[_T]], tuple[str, int] | None],
    ) -> None:
        """Do all of it.

        Args:
            work: What there is to do.
            split: Batches of `work` within a number of tokens; at least one unit each.
            forward: Does one batch.
            alone: Place and tokens of the unit that a batch consists of; None if it has more.

        Raises:
            InputError: A unit does not fit even alone; `subject_id` is its place.
        """
        batches = split(work, self.tokens)
        for batch in batches:
            if _fits(forward, batch):
                continue
            gc.collect()
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
            if (unit := alone(batch)) is not None:
                place, tokens = unit
                raise InputError(
                    f"{self._unit} {place} has {tokens} tokens and does not fit this device's "
                    f"memory even alone (the limit came down to {self.tokens} tokens a batch): "
                    "lower max_pixels, shorten the text, or use a larger device",
                    "out_of_memory",
                    place,
                )
            self.tokens = max(1, self.tokens // 2)
            # What is left of this batch, then of the others, under the new budget.
            self.run(batch, split, forward, alone)
            self.run([one for rest in batches for one in rest], split, forward, alone)
            return


def _fits(forward: Callable[[list[_T]], None], batch: list[_T]) -> bool:
    # Returning drops the traceback, and with it the tensors of the frames that failed.
    try:
        forward(batch)
    except torch.OutOfMemoryError:
        return False
    except RuntimeError as error:
        if any(sign in str(error) for sign in _SIGNS):
            return False
        raise
    return True
