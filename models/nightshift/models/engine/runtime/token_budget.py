"""The number of tokens in one forward, halved when device memory runs out."""

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from nightshift.schema.errors import InputError

__all__ = ["GPU_TOKENS_PER_PASS", "TokenBudget", "tokens_per_pass"]

_T = TypeVar("_T")
#: Tokens of one pass over a GPU, or any device but a CPU: enough to keep it busy.
GPU_TOKENS_PER_PASS = 16_384
# Messages of memory that ran out below PyTorch's own GPU allocator, where errors have no type.
_OUT_OF_MEMORY_MESSAGES = (
    "can't allocate memory",
    "_ALLOC_FAILED",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_NOT_INITIALIZED",
)


def tokens_per_pass(device_type: str, *, cpu: int) -> int:
    """Tokens that one pass takes on a kind of device.

    Args:
        device_type: torch's name, such as `cpu` or `cuda`.
        cpu: Tokens of a pass on a CPU, where few stay in its cache.
    """
    return cpu if device_type == "cpu" else GPU_TOKENS_PER_PASS


class TokenBudget:
    """Runs work in batches of at most so many tokens; in smaller ones when memory runs out.

    Args:
        tokens: Tokens of a batch at first; halved for good whenever a batch does not fit.
        unit: The name of one unit of work, for messages.
    """

    def __init__(self, tokens: int, unit: str = "pair") -> None:
        self.tokens = tokens
        self._unit = unit

    def run(
        self,
        work: Sequence[_T],
        split: Callable[[Sequence[_T], int], Iterator[list[_T]]],
        forward: Callable[[list[_T]], None],
        single_unit: Callable[[list[_T]], tuple[str, int] | None],
    ) -> None:
        """Do all work.

        Args:
            work: Units of work.
            split: Batches of `work` within a number of tokens; at least one unit each.
            forward: Does one batch.
            single_unit: Place and tokens of the only unit of a batch; None if it has more.

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
            if (unit := single_unit(batch)) is not None:
                place, tokens = unit
                raise InputError(
                    f"{self._unit} {place} has {tokens} tokens and does not fit this device's "
                    f"memory even alone (the limit came down to {self.tokens} tokens a batch): "
                    "lower max_pixels, shorten the text, or use a larger device",
                    "out_of_memory",
                    place,
                )
            self.tokens = max(1, self.tokens // 2)
            # The units of this batch, then of the others, under the new budget.
            self.run(batch, split, forward, single_unit)
            self.run([member for rest in batches for member in rest], split, forward, single_unit)
            return


def _fits(forward: Callable[[list[_T]], None], batch: list[_T]) -> bool:
    # Returning drops the traceback, and with it the tensors of the frames that failed.
    try:
        forward(batch)
    except torch.OutOfMemoryError:
        return False
    except RuntimeError as error:
        if any(message in str(error) for message in _OUT_OF_MEMORY_MESSAGES):
            return False
        raise
    return True
