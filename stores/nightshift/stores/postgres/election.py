"""Election of one leader among processes: a named lease, renewed by a thread."""

import logging
from threading import Event, Thread
from time import monotonic
from types import TracebackType
from typing import Self

from nightshift.schema.errors import ServiceUnavailableError
from nightshift.stores.postgres import named_leases
from nightshift.stores.postgres.database import Database

__all__ = ["Election"]

_log = logging.getLogger(__name__)


class Election:
    """A candidate for a lease; a thread renews it, so long work keeps it and a frozen process not.

    Args:
        database: Postgres.
        name: The lease.
        holder: This candidate.
        ttl_s: Seconds after which the lease of a dead or frozen leader expires.
    """

    def __init__(self, database: Database, name: str, holder: str, ttl_s: float) -> None:
        self._database = database
        self._name = name
        self._holder = holder
        self._ttl_s = ttl_s
        #: Token, and when by `monotonic` the lease may be gone.
        self._held: tuple[int, float] | None = None
        self._stop = Event()
        self._thread = Thread(target=self._run, name="election", daemon=True)

    @property
    def token(self) -> int | None:
        """The fencing token while this process leads, else None."""
        held = self._held
        return held[0] if held is not None and monotonic() < held[1] else None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the lease back, so that another candidate leads at once."""
        self._stop.set()
        self._thread.join()
        try:
            named_leases.release(self._database, self._name, self._holder)
        except ServiceUnavailableError as outage:
            _log.warning("the lease %r runs out by itself: %s", self._name, outage)

    def _run(self) -> None:
        while True:
            # Counted from before the request: Postgres counts from when it answers.
            until = monotonic() + self._ttl_s
            was_leader = self._held is not None
            try:
                token = named_leases.acquire(self._database, self._name, self._holder, self._ttl_s)
            except ServiceUnavailableError as error:
                _log.warning("waiting for %s: %s", error.service, error)
            except Exception:  # noqa: BLE001 - nobody would lead if this thread ended
                _log.exception(
                    "the lease %r could not be requested; the next try follows", self._name
                )
            else:
                self._held = None if token is None else (token, until)
                if was_leader != (token is not None):
                    _log.info("%s the lease %r", "lost" if was_leader else "holds", self._name)
            if self._stop.wait(self._ttl_s / 8):
                return
