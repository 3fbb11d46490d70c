"""Waiting no longer than was meant, also where what is waited for knows no time limit."""

import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache, partial
from queue import SimpleQueue
from threading import BoundedSemaphore, Thread
from typing import TypeVar

from nightshift.schema.settings import Settings

__all__ = ["Deadline", "answer_s"]

_T = TypeVar("_T")

#: Longest time for a fetch; with a short lease, this share of it.
_WHOLE_S = 60.0
_SHARE_OF_LEASE = 0.75
#: Calls at once, those among them that nobody waits for any more.
_calls = BoundedSemaphore(64)
#: Threads that wait for their next call, the last one first: fsspec keeps an object store's
#: connections by thread, and would make new ones in every new thread.
_idle: "list[SimpleQueue[Callable[[], None]]]" = []


@cache
def answer_s() -> float:
    """Seconds that a fetch may take in all: less than a lease, so that the job stays ours."""
    return min(_WHOLE_S, _SHARE_OF_LEASE * Settings().lease_s)


class Deadline:
    """A moment by which several steps must be done together.

    Args:
        seconds: From now.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until then, more than none.

        Raises:
            TimeoutError: It is past.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("it took too long")
        return left

    def passed(self, after_s: float = 0.0) -> bool:
        """Whether it is past, or will be in so many seconds."""
        return time.monotonic() + after_s >= self._end

    def call(self, action: Callable[[], _T]) -> _T:
        """What `action` returns or raises, in a thread of its own.

        Raises:
            TimeoutError: It did not end in time; its thread goes on until it does.
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
            except RuntimeError:  # no thread can be started at the moment
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
        del call  # and what it holds, while the thread is idle
        _idle.append(inbox)
        _calls.release()


def _settle(action: Callable[[], _T], outcome: "Future[_T]") -> None:
    try:
        outcome.set_result(action())
    except BaseException as error:  # noqa: BLE001 - raised where it is waited for
        outcome.set_exception(error)


os.register_at_fork(after_in_child=_idle.clear)
