"""Threads that plan the next stages of runs, so that no run waits for the plan of another."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

__all__ = ["Planners"]

#: Runs whose next stages are planned at the same time.
_THREADS = 4


class Planners:
    """Plans a few runs at a time, each in a thread of its own.

    One thread calls it.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="planner")
        #: Run id → its plan in work.
        self._in_work: dict[int, Future[object]] = {}

    def submit(self, run_id: int, plan: Callable[[], object]) -> None:
        """Let a thread plan a run, unless one does so already."""
        present = self._in_work.get(run_id)
        if present is None or present.done():
            self._in_work[run_id] = self._pool.submit(plan)

    def forget_ended(self, active: set[int]) -> None:
        """Forget runs that are no longer active."""
        for run_id in [run_id for run_id in self._in_work if run_id not in active]:
            if self._in_work[run_id].done():
                del self._in_work[run_id]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for the transactions in work; each plan ends with the one that it is in."""
        self._pool.shutdown(wait=True, cancel_futures=True)
