"""Celery's consumer of messages, made to wait for Redis instead of asking it without a pause."""

import logging
from time import sleep

from celery.worker.consumer import Consumer

__all__ = ["PatientConsumer"]

_log = logging.getLogger(__name__)

_PAUSE_S, _LONGEST_S = 0.5, 4.0


class PatientConsumer(Consumer):  # type: ignore[misc]  # Celery is untyped
    """Connects again after every error of Redis, with a pause that grows while the errors go on.

    A Redis that cannot be reached is asked again by Celery itself; one that answers with an error
    would be asked hundreds of times a second.
    """

    _pause_s = _PAUSE_S

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Wait a moment; Celery connects again."""
        self._wait(exc)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Wait a moment, and let Celery close the connection."""
        self._wait(exc)
        super().on_connection_error_after_connected(exc)

    def on_ready(self) -> None:
        """Begin with the shortest pause again: a queue could be subscribed to."""
        self._pause_s = _PAUSE_S
        super().on_ready()

    def _wait(self, error: Exception) -> None:
        _log.warning("waiting for redis: %s: %s", type(error).__name__, str(error)[:500])
        sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, _LONGEST_S)
