"""Logging to standard error: safe for terminals, and each repeated message once a minute."""

import logging
import re
import traceback
from threading import Lock
from time import monotonic
from typing import Any

from nightshift.schema.display import visible
from nightshift.stores.files.addresses import without_password

__all__ = ["RepeatedMessageFilter", "VisibleFormatter", "log_to_stderr"]

_MINUTE_S = 60.0
#: How many different messages the filter remembers.
_MAX_MESSAGES = 1000
#: Numbers and digests, which differ from one occurrence of an error to the next.
_VARIABLE = re.compile(r"[0-9a-f]*[0-9][0-9a-f]*")


def log_to_stderr(level: str) -> None:
    """Write our own log at `level`, and warnings and errors of libraries, to standard error."""
    handler = logging.StreamHandler()
    handler.addFilter(RepeatedMessageFilter())
    handler.setFormatter(VisibleFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("nightshift").setLevel(level)


class VisibleFormatter(logging.Formatter):
    """Formats records for a terminal: control characters are escaped, passwords removed.

    A record is one line, apart from its traceback.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line of a record."""
        record.message = visible(without_password(record.message))
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: ANN401, N802 - logging's name and type
        """The traceback of a record."""
        return visible(without_password(super().formatException(ei)), keep="\n")


class RepeatedMessageFilter(logging.Filter):
    """Drops a warning or an error that was logged within the last minute.

    The next occurrence that passes says how many were dropped. Errors with a traceback count as
    equal if their log message and lines of code are equal, because the text of an error may hold
    times and numbers.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = Lock()
        #: Message → time of its last logging by `monotonic`, and how many were dropped since.
        self._logged: dict[tuple[object, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Decide whether a record is logged."""
        if record.levelno < logging.WARNING:
            return True
        key, now = _key(record), monotonic()
        with self._lock:
            logged_at, n_dropped = self._logged.get(key, (-_MINUTE_S, 0))
            if now - logged_at < _MINUTE_S:
                self._logged[key] = (logged_at, n_dropped + 1)
                return False
            self._logged.pop(key, None)  # the latest come last
            self._logged[key] = (now, 0)
            if len(self._logged) > _MAX_MESSAGES:
                self._logged.pop(next(iter(self._logged)))
        if n_dropped:
            record.msg = f"{record.getMessage()} ({n_dropped} more times since)"
            record.args = ()
        return True


def _key(record: logging.LogRecord) -> tuple[object, ...]:
    error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    message = (record.name, record.levelno, record.getMessage())
    if error is None:
        return message
    frames = traceback.extract_tb(error.__traceback__)
    lines_of_code = tuple((frame.filename, frame.lineno) for frame in frames)
    return (*message, type(error).__qualname__, _VARIABLE.sub("#", str(error)), lines_of_code)
