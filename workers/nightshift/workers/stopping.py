"""Stop a worker: it finishes the job in hand, or hands it back within the grace period."""

import logging
import os
from threading import Event, Thread
from typing import Any

from nightshift.schema.errors import ServiceUnavailableError
from nightshift.workers.session import WorkerSession

__all__ = ["GracefulStop"]

_log = logging.getLogger(__name__)


class GracefulStop:
    """Handles signals to stop.

    After the first one no job is begun any more, and the one in hand may go on for the grace
    period. When that is over, or at a second signal, the job is handed back and the process ends,
    whatever its model is doing.

    Args:
        session: This worker.
    """

    def __init__(self, session: WorkerSession) -> None:
        self._session = session
        self._stop_now = Event()

    def ask(self, how: str = "Warm", **_: Any) -> None:  # noqa: ANN401 - Celery's signature
        """Answer a signal; Celery calls Ctrl-C and SIGQUIT `Cold`."""
        if self._session.stopping or how == "Cold":
            self._stop_now.set()
        if not self._session.stopping:
            self._session.stopping = True
            Thread(target=self._end_in_time, name="stop", daemon=True).start()

    def _end_in_time(self) -> None:
        session = self._session
        self._stop_now.wait(session.settings.grace_s)
        claim = session.in_hand
        try:
            if claim is not None:
                # Where the job is just being committed, this waits and then changes nothing.
                session.ledger.hand_back(claim, "the worker is stopping")
                _log.info("run %d: job %d handed back: stopping", claim.run_id, claim.job_id)
            session.retire()
        except ServiceUnavailableError as error:
            _log.warning("could not hand back, its lease will run out: %s", error)
        except Exception:  # noqa: BLE001 - the process ends in any case
            _log.exception("could not hand back, its lease will run out")
        os._exit(0)
