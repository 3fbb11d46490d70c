"""Threads of the CPU: several workers on one machine must not each take all of it."""

import os
from functools import lru_cache

import torch

__all__ = ["cores", "share_cores", "use_one_core"]


def share_cores(n_workers: int) -> int:
    """Use this worker's share of the machine's cores from the next forward on.

    Without it three workers run three times as many threads as there are cores, and each waits
    for the others at every barrier. `OMP_NUM_THREADS` stays an upper bound.

    Args:
        n_workers: Workers on this machine, this one among them.

    Returns:
        The number of threads that torch uses now.
    """
    share = max(1, len(os.sched_getaffinity(0)) // max(1, n_workers))
    wanted = min(_at_start(), share)
    if wanted != torch.get_num_threads():
        torch.set_num_threads(wanted)
    return wanted


def cores() -> int:
    """This worker's share of the machine's cores, as `share_cores` said last in this thread."""
    return torch.get_num_threads()


def use_one_core() -> None:
    """Compute without helpers from now on, in this thread and those that begin later."""
    torch.set_num_threads(1)


@lru_cache(maxsize=1)
def _at_start() -> int:
    return torch.get_num_threads()
