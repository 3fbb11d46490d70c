"""Connections that break in the middle of a transaction."""

from time import monotonic, sleep

from sqlalchemy import text

from nightshift.stack.faults.site import Site

__all__ = ["drop_connections"]

_PATIENCE_S = 10.0


def drop_connections(site: Site) -> str | None:
    """Let Postgres end every session of a worker or dispatcher that is inside a transaction."""
    deadline = monotonic() + _PATIENCE_S
    while site.in_hand() and monotonic() < deadline:
        for _ in range(200):
            with site.database.begin() as connection:
                dropped = connection.execute(
                    text(
                        """
                        SELECT count(*) FILTER (WHERE pg_terminate_backend(pid))
                        FROM pg_stat_activity WHERE xact_start IS NOT NULL
                            AND application_name IN ('nightshift worker', 'nightshift dispatcher')
                        """
                    )
                ).scalar_one()
            if dropped:
                return f"dropped {dropped} connections in the middle of their transactions"
            sleep(0.002)
    return None
