"""The device that a model runs on, and this worker's share of the CPU's cores."""

import os
import re
from functools import lru_cache

import torch

from nightshift.schema.errors import ConfigurationError

__all__ = ["cores", "pick_device", "release_device_memory", "share_cores", "use_one_core"]

_DEVICE = re.compile(r"auto|cpu|cuda(:(0|[1-9][0-9]{0,3}))?")


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; `auto` is the first GPU, or the CPU where there is none.

    Raises:
        ConfigurationError: It is malformed, or there is no such device.
    """
    if not _DEVICE.fullmatch(name):
        raise ConfigurationError(f"--device {name!r}: write auto, cpu, cuda or cuda:N")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        numbers = f"cuda:0 to cuda:{count - 1}" if count else "none"
        raise ConfigurationError(
            f"--device {name!r}: PyTorch finds {count} GPUs on this machine ({numbers}); "
            "`nightshift doctor` says why, and --device cpu works without one"
        )
    return device


def release_device_memory() -> None:
    """Give memory of dropped models back to the device; does not initialise it."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


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
    n_threads = min(_threads_at_start(), share)
    if n_threads != torch.get_num_threads():
        torch.set_num_threads(n_threads)
    return n_threads


def cores() -> int:
    """This worker's share of the machine's cores, as `share_cores` set it last in this thread."""
    return torch.get_num_threads()


def use_one_core() -> None:
    """Compute on one core from now on, in this thread and in those that begin later."""
    torch.set_num_threads(1)


@lru_cache(maxsize=1)
def _threads_at_start() -> int:
    return torch.get_num_threads()
