"""Watch over a running stack: what dies is started again, with a pause that grows."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event
from time import monotonic

from nightshift.schema.errors import ConflictError, NightshiftError
from nightshift.stack.embedded.stack import Stack

__all__ = ["Supervisor", "only_supervisor"]

_log = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0
#: Pauses before a part is started again: the first at once, then these, doubled up to the longest.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
#: A part that has run for so long begins with the shortest pause again.
_WELL_AFTER_S = 120.0


@dataclass(slots=True)
class _Part:
    """What is remembered of a part that died."""

    pause_s: float = 0.0
    started: float = 0.0


class Supervisor:
    """Keeps the parts of a stack running until it is stopped.

    A part counts as dead when its process is gone though nobody stopped it; what `nightshift down`
    has stopped is left alone.

    Args:
        stack: That `up` has started.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._parts: dict[str, _Part] = {}

    def watch(self, stop: Event) -> bool:
        """Look once a second until `stop` is set.

        Returns:
            Whether anything is left to stop: not where `nightshift down` did so meanwhile.
        """
        while not stop.wait(_LOOK_EVERY_S):
            recorded = self._stack.recorded()
            if not recorded:
                _log.info("the stack was stopped by `nightshift down`")
                return False
            for name in (name for name, alive in recorded.items() if not alive):
                if stop.is_set():
                    break
                self._start_when_due(name)
        return True

    def _start_when_due(self, name: str) -> None:
        part = self._parts.setdefault(name, _Part())
        now = monotonic()
        if part.started and now - part.started > _WELL_AFTER_S + part.pause_s:
            part.pause_s = 0.0
        if now < part.started + part.pause_s:
            return
        part.pause_s = min(max(2 * part.pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
        try:
            if self._stack.start(name):
                _log.warning(
                    "%s died and was started again; if it dies again soon, that waits %.0f s",
                    name,
                    part.pause_s,
                )
        except NightshiftError as error:
            _log.error("%s died and does not start: %s", name, error)
        except Exception:  # noqa: BLE001 - the other parts are watched all the same
            _log.exception("%s died and does not start", name)
        part.started = monotonic()


@contextmanager
def only_supervisor(stack: Stack) -> Iterator[None]:
    """Be the one process that watches over a stack.

    Raises:
        ConflictError: Where another does.
    """
    stack.prepare()
    descriptor = os.open(stack.data_dir / "supervisor.lock", os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(
                f"another `nightshift up --supervise` watches over {stack.data_dir}: end that one"
            ) from None
        yield
