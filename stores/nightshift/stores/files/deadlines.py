"""Time limits, also for calls that have none themselves."""

import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache, partial
from queue import SimpleQueue
from threading import BoundedSemaphore, Thread
from typing import TypeVar

from nightshift.schema.settings import Settings

__all__ = ["Deadline", "fetch_timeout_s"]

_T = TypeVar("_T")

#: The longest time for a fetch; with a short lease, this share of the lease.
_MAX_FETCH_S = 60.0
_SHARE_OF_LEASE = 0.75
#: Limits the calls in progress, including those that timed out and still run.
_calls = BoundedSemaphore(64)
#: Inboxes of idle threads, the last used last. Threads are reused because fsspec keeps connections
#: to an object store per thread.
_idle: "list[SimpleQueue[Callable[[], None]]]" = []


@cache
def fetch_timeout_s() -> float:
    """Seconds that a fetch may take: less than a lease, so that the job keeps its lease."""
    return min(_MAX_FETCH_S, _SHARE_OF_LEASE * Settings().lease_s)


class Deadline:
    """A point in time by which several steps must be done together.

    Args:
        seconds: Time from now.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds that are left; always positive.

        Raises:
            TimeoutError: When the deadline has passed.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("it took too long")
        return left

    def passed(self, after_s: float = 0.0) -> bool:
        """True if the deadline has passed, or will have in `after_s` seconds."""
        return time.monotonic() + after_s >= self._end

    def call(self, action: Callable[[], _T]) -> _T:
        """Run `action` in another thread; returns or raises what it does.

        Raises:
            TimeoutError: When it does not end in time; its thread runs on until it ends.
        """
        if not _calls.acquire(timeout=self.left()):
            raise TimeoutError("too many calls are waiting")
        outcome: Future[_T] = Future()
        try:
            inbox = _idle.pop()
        except IndexError:
            inbox = SimpleQueue()
            try:
                Thread(target=_serve, args=(inbox,), name="deadline", daemon=True).start()
            except RuntimeError:  # the system refuses another thread
                _calls.release()
                raise
        inbox.put(partial(_settle, action, outcome))
        try:
            return outcome.result(timeout=self.left())
        except TimeoutError as error:
            raise error if outcome.done() else TimeoutError("it does not answer in time") from error


def _serve(inbox: "SimpleQueue[Callable[[], None]]") -> None:
    while True:
        call = inbox.get()
        call()
        del call  # an idle thread must not keep what the call refers to
        _idle.append(inbox)
        _calls.release()


def _settle(action: Callable[[], _T], outcome: "Future[_T]") -> None:
    try:
        outcome.set_result(action())
    except BaseException as error:  # noqa: BLE001 - the waiting thread raises it
        outcome.set_exception(error)


os.register_at_fork(after_in_child=_idle.clear)
