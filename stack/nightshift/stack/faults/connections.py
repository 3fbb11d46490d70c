"""A fault that ends database connections in the middle of a transaction."""

from time import monotonic, sleep

from sqlalchemy import text

from nightshift.stack.faults.target import FaultTarget

__all__ = ["drop_connections"]

_TIMEOUT_S = 10.0

#: Ends sessions that are inside a transaction, and counts them.
_END_SESSIONS = text(
    """
    SELECT count(*) FILTER (WHERE pg_terminate_backend(pid))
    FROM pg_stat_activity
    WHERE xact_start IS NOT NULL
      AND application_name IN ('nightshift worker', 'nightshift dispatcher')
"""
)


def drop_connections(target: FaultTarget) -> str | None:
    """End every Postgres session of a worker or dispatcher that is inside a transaction."""
    deadline = monotonic() + _TIMEOUT_S
    while target.held_jobs() and monotonic() < deadline:
        for _ in range(200):
            with target.database.begin() as connection:
                dropped = connection.execute(_END_SESSIONS).scalar_one()
            if dropped:
                return f"dropped {dropped} connections in the middle of their transactions"
            sleep(0.002)
    return None
