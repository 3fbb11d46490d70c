"""Named leases in Postgres: one holder at a time, a fencing token, expiry by Postgres' clock.

The acting dispatcher and the writer to Milvus Lite hold one. A worker's lease on a job is another
matter: it stands in the job's own row, see `stores.ledger.claims`.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from secrets import token_hex
from threading import Event, Thread
from time import monotonic, sleep

from sqlalchemy import Connection, Integer, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from nightshift.schema.errors import LeaseLostError, NightshiftError, ServiceUnavailableError
from nightshift.schema.process_tables import Lease
from nightshift.stores.postgres.database import Database

__all__ = ["acquire", "confirm", "hold", "release"]

_log = logging.getLogger(__name__)


def acquire(database: Database, name: str, holder: str, ttl_s: float) -> int | None:
    """Take or renew a lease.

    A frozen holder loses the lease when it expires; it would keep an advisory lock.

    Returns:
        The fencing token; it grows by one with each change of holder. None while another holds it.
    """
    request = insert(Lease).values(
        name=name,
        holder=holder,
        token=1,
        expires_at=func.clock_timestamp() + timedelta(seconds=ttl_s),
    )
    excluded = request.excluded
    with database.begin() as connection:
        token = connection.execute(
            request.on_conflict_do_update(
                index_elements=[Lease.name],
                set_={
                    "token": Lease.token + (Lease.holder != excluded.holder).cast(Integer),
                    "holder": excluded.holder,
                    "expires_at": excluded.expires_at,
                },
                where=or_(
                    Lease.holder == excluded.holder, Lease.expires_at < func.clock_timestamp()
                ),
            ).returning(Lease.token)
        ).scalar()
    return None if token is None else int(token)


def confirm(connection: Connection, name: str, token: int) -> None:
    """Check that a lease is still held, as the last statement of a transaction.

    Nobody can take the lease between this check and the commit.

    Raises:
        LeaseLostError: When another has taken the lease since.
    """
    held = connection.execute(
        select(Lease.name)
        .where(Lease.name == name, Lease.token == token)
        .with_for_update(read=True)
    ).one_or_none()
    if held is None:
        raise LeaseLostError(
            f"the lease {name!r} went to another process; nothing of this step is written"
        )


def release(database: Database, name: str, holder: str) -> bool:
    """Give a lease back; harmless if it was lost already.

    Returns:
        True if nobody else has held the lease since it was acquired.
    """
    with database.begin() as connection:
        released = connection.execute(
            update(Lease)
            .where(Lease.name == name, Lease.holder == holder)
            .values(expires_at="-infinity", holder="")
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
    """Wait for a lease, hold it for the block, then release it.

    A thread renews it, so the block may take any time.

    Args:
        database: Postgres.
        name: The lease.
        holder: The process that wants it; holders of one name exclude each other too.
        ttl_s: Seconds after which the lease of a dead holder expires.
        timeout_s: Seconds to wait for it.
        waiting: Called repeatedly during the wait; may raise to give up.

    Raises:
        ServiceUnavailableError: When the lease was not free within `timeout_s`.
        LeaseLostError: At the end of the block, when another process has held the lease meanwhile:
            this process was frozen, or Postgres unreachable, for longer than `ttl_s`.
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
    """Extend a lease until it is released or lost."""
    while not ended.wait(ttl_s / 8):
        try:
            with database.begin() as connection:
                renewed = connection.execute(
                    update(Lease)
                    .where(Lease.name == name, Lease.holder == holder)
                    .values(expires_at=func.clock_timestamp() + timedelta(seconds=ttl_s))
                )
        except NightshiftError as error:
            _log.warning("the lease %r may run out: %s", name, error)
        else:
            if renewed.rowcount == 0:
                _log.warning("%s has lost the lease %r", holder, name)
                return
