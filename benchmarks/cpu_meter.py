"""CPU seconds of a stack: of its services, dispatcher and workers, and of this process."""

from contextlib import suppress

import psutil

from nightshift.stack import Stack

__all__ = ["CpuMeter"]


class CpuMeter:
    """Sums the CPU seconds of all processes of a stack, those that have ended included.

    A service that serves each connection by a process of its own, as Postgres does, counts its
    ended children when it waits for them.

    Args:
        stack: A running stack, whose parts are not restarted meanwhile.
    """

    def __init__(self, stack: Stack) -> None:
        self._parts = [
            psutil.Process(part.pid) for part in stack.status().parts if part.pid is not None
        ]
        self._own = psutil.Process()

    def seconds(self) -> float:
        """CPU seconds so far, of user and system."""
        own = self._own.cpu_times()
        return float(own.user + own.system) + sum(map(_of_tree, self._parts))


def _of_tree(part: psutil.Process) -> float:
    seconds = 0.0
    with suppress(psutil.NoSuchProcess):
        for process in (part, *part.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                seconds += times.user + times.system + times.children_user + times.children_system
    return seconds
