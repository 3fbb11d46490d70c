"""Supervision of a running stack: parts that die are started again, after growing pauses."""

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

#: The pauses of a part that has run for so long begin with the shortest again.
_STABLE_AFTER_S = 120.0


@dataclass(slots=True)
class _RestartPause:
    """The last start of a part that died, and the pause after it."""

    pause_s: float = 0.0
    started: float = 0.0


class Supervisor:
    """Keeps the parts of a stack running until it is stopped.

    A part has died if its process is gone and nobody stopped it. Parts that `nightshift down`
    stopped are left alone. A part that died is started again immediately; if it dies again soon,
    after a pause that doubles each time.

    Args:
        stack: A stack that `up` has started.
        check_every_s: Seconds between two checks.
        first_pause_s: The first pause.
        longest_pause_s: The pause at which the doubling ends.
    """

    def __init__(
        self,
        stack: Stack,
        *,
        check_every_s: float = 1.0,
        first_pause_s: float = 1.0,
        longest_pause_s: float = 60.0,
    ) -> None:
        self._stack = stack
        self._check_every_s = check_every_s
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._pauses: dict[str, _RestartPause] = {}

    def watch(self, stop: Event) -> bool:
        """Check the parts until `stop` is set or the stack was stopped.

        Returns:
            True if parts are left to stop; False if `nightshift down` has stopped them.
        """
        while not stop.wait(self._check_every_s):
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
        pause = self._pauses.setdefault(name, _RestartPause())
        now = monotonic()
        if pause.started and now - pause.started > _STABLE_AFTER_S + pause.pause_s:
            pause.pause_s = 0.0
        if now < pause.started + pause.pause_s:
            return
        pause.pause_s = min(max(2 * pause.pause_s, self._first_pause_s), self._longest_pause_s)
        try:
            if self._stack.start(name):
                _log.warning(
                    "%s died and was started again; the next restart waits %.0f s",
                    name,
                    pause.pause_s,
                )
        except NightshiftError as error:
            _log.error("%s died and cannot be started: %s", name, error)
        except Exception:  # noqa: BLE001 - the other parts are still watched
            _log.exception("%s died and cannot be started", name)
        pause.started = monotonic()


@contextmanager
def only_supervisor(stack: Stack) -> Iterator[None]:
    """Hold the supervisor lock of a stack: only one process supervises it.

    Raises:
        ConflictError: When another process supervises it.
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
