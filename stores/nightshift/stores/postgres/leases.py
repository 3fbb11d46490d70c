"""Named leases in Postgres: one holder at a time, a fencing token a grant, expiry by its clock."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from secrets import token_hex
from threading import Event, Thread
from time import monotonic, sleep

from sqlalchemy import Connection, text

from nightshift.schema.errors import LeaseLostError, NightshiftError, ServiceUnavailableError
from nightshift.stores.postgres.database import Database

__all__ = ["acquire", "confirm", "hold", "release"]

_log = logging.getLogger(__name__)


def acquire(database: Database, name: str, holder: str, ttl_s: float) -> int | None:
    """Take or renew a lease.

    A frozen holder loses it by the clock, which an advisory lock would not see.

    Returns:
        The fencing token; it grows by one with each change of holder. None while another holds it.
    """
    with database.begin() as connection:
        token = connection.execute(
            text(
                """
                INSERT INTO lease AS l (name, holder, token, expires_at)
                VALUES (:name, :holder, 1, clock_timestamp() + make_interval(secs => :ttl))
                ON CONFLICT (name) DO UPDATE SET
                    token = l.token + (l.holder <> excluded.holder)::int,
                    holder = excluded.holder,
                    expires_at = excluded.expires_at
                WHERE l.holder = excluded.holder OR l.expires_at < clock_timestamp()
                RETURNING token
                """
            ),
            {"name": name, "holder": holder, "ttl": ttl_s},
        ).scalar()
    return None if token is None else int(token)


def confirm(connection: Connection, name: str, token: int) -> None:
    """The last statement of a transaction that only the holder may commit.

    Nobody can take the lease between this and the commit.

    Raises:
        LeaseLostError: When another has taken the lease since.
    """
    held = connection.execute(
        text("SELECT FROM lease WHERE name = :name AND token = :token FOR SHARE"),
        {"name": name, "token": token},
    ).one_or_none()
    if held is None:
        raise LeaseLostError(
            f"the lease {name!r} went to another process; nothing of this step is written"
        )


def release(database: Database, name: str, holder: str) -> bool:
    """Let the next one in at once; harmless where the lease was lost already.

    Returns:
        Whether nobody else has had the lease since it was acquired.
    """
    with database.begin() as connection:
        released = connection.execute(
            text(
                "UPDATE lease SET expires_at = '-infinity', holder = '' "
                "WHERE name = :name AND holder = :holder"
            ),
            {"name": name, "holder": holder},
        )
    return released.rowcount == 1


@contextmanager
def hold(
    database: Database,
    name: str,
    holder: str,
    *,
    ttl_s: float = 30.0,
    timeout_s: float = 120.0,
    waiting: Callable[[], None] = lambda: None,
) -> Iterator[int]:
    """Wait for a lease, hold it for the block, release it.

    It is renewed beside the block, so the block may take as long as it takes.

    Args:
        database: Postgres.
        name: Of the lease.
        holder: Who wants it; several that call themselves the same take turns too.
        ttl_s: How long it outlives a holder that dies.
        timeout_s: How long to wait for it.
        waiting: Called again and again during the wait; may raise to give up.

    Raises:
        ServiceUnavailableError: When it could not be had within `timeout_s`.
        LeaseLostError: At the end of the block, when another has had the lease meanwhile: this
            process was frozen, or Postgres away, for longer than `ttl_s`.
    """
    deadline = monotonic() + timeout_s
    holder = f"{holder} {token_hex(4)}"
    while (token := acquire(database, name, holder, ttl_s)) is None:
        if monotonic() > deadline:
            raise ServiceUnavailableError(
                f"the lease {name!r} was not free for {timeout_s:.0f} s", "lease"
            )
        waiting()
        sleep(0.02)
    ended = Event()
    renewal = Thread(
        target=_renew, args=(database, name, holder, ttl_s, ended), name="renewal", daemon=True
    )
    renewal.start()
    try:
        yield token
    finally:
        ended.set()
        renewal.join()
        kept = release(database, name, holder)
    if not kept:
        raise LeaseLostError(
            f"the lease {name!r} went to another process while {holder} relied on it (it was "
            "frozen, or Postgres away): do this step again"
        )


def _renew(database: Database, name: str, holder: str, ttl_s: float, ended: Event) -> None:
    """Push the end of a lease away until it is released or lost."""
    while not ended.wait(ttl_s / 8):
        try:
            with database.begin() as connection:
                renewed = connection.execute(
                    text(
                        "UPDATE lease SET expires_at = clock_timestamp() + "
                        "make_interval(secs => :ttl) WHERE name = :name AND holder = :holder"
                    ),
                    {"name": name, "holder": holder, "ttl": ttl_s},
                )
        except NightshiftError as error:
            _log.warning("the lease %r may run out: %s", name, error)
        else:
            if renewed.rowcount == 0:
                _log.warning("%s has lost the lease %r", holder, name)
                return
