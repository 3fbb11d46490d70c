"""A log that says the same thing again and again says it once a minute."""

import logging
import re
import traceback
from threading import Lock
from time import monotonic

__all__ = ["OncePerMinute"]

_MINUTE_S = 60.0
#: So many different messages are remembered.
_MOST = 1000
#: Numbers and digests, which differ from one occurrence of an error to the next.
_VARIABLE = re.compile(r"[0-9a-f]*[0-9][0-9a-f]*")


class OncePerMinute(logging.Filter):
    """Keeps back a warning or an error that was said within the last minute.

    When it is said again, it says how often it was kept back. Errors with a traceback are the same
    where the message and the lines of code are: their own text may hold times and numbers.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = Lock()
        #: What was said → when by `monotonic`, and how often it was kept back since.
        self._said: dict[tuple[object, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this one is to be said."""
        if record.levelno < logging.WARNING:
            return True
        key, now = _key(record), monotonic()
        with self._lock:
            said, kept_back = self._said.get(key, (-_MINUTE_S, 0))
            if now - said < _MINUTE_S:
                self._said[key] = (said, kept_back + 1)
                return False
            self._said.pop(key, None)  # the latest come last
            self._said[key] = (now, 0)
            if len(self._said) > _MOST:
                self._said.pop(next(iter(self._said)))
        if kept_back:
            record.msg = f"{record.getMessage()} ({kept_back} more times since)"
            record.args = ()
        return True


def _key(record: logging.LogRecord) -> tuple[object, ...]:
    error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    message = (record.name, record.levelno, record.getMessage())
    if error is None:
        return message
    lines = traceback.extract_tb(error.__traceback__)
    places = tuple((line.filename, line.lineno) for line in lines)
    return (*message, type(error).__qualname__, _VARIABLE.sub("#", str(error)), places)
