"""Tallies: what jobs measure of their own work, written with their results and summed later."""

from collections.abc import Mapping

from sqlalchemy import Connection, text

from nightshift.schema.states import TallyName

__all__ = ["compact_tallies", "tallies_of_run", "write_tallies"]

_AT_ONCE = 20_000


def write_tallies(connection: Connection, run_id: int, amounts: Mapping[TallyName, float]) -> None:
    """Add what a job measured.

    Args:
        connection: The job's last transaction: what is written there is written once.
        run_id: The job's run.
        amounts: By name.
    """
    connection.execute(
        text(
            "INSERT INTO tally_delta (run_id, name, amount) "
            "SELECT :run, * FROM unnest(CAST(:names AS text[]), CAST(:amounts AS float8[]))"
        ),
        {
            "run": run_id,
            "names": [name.value for name in amounts],
            "amounts": [float(amount) for amount in amounts.values()],
        },
    )


def tallies_of_run(connection: Connection, run_id: int) -> dict[TallyName, float]:
    """Sums over all jobs of a run that have ended; what nobody measured is left out."""
    rows = connection.execute(
        text("SELECT name, amount FROM v_tally WHERE run_id = :run"), {"run": run_id}
    )
    return {TallyName(row.name): float(row.amount) for row in rows}


def compact_tallies(connection: Connection) -> int:
    """Move deltas into the sums; deltas that another transaction is moving are left to it.

    Returns:
        How many were moved.
    """
    moved = connection.execute(
        text(
            """
            WITH moved AS (
                DELETE FROM tally_delta WHERE id = ANY(ARRAY(
                    SELECT id FROM tally_delta ORDER BY id LIMIT :most FOR UPDATE SKIP LOCKED))
                RETURNING run_id, name, amount
            ), summed AS (
                INSERT INTO tally AS t (run_id, name, amount)
                SELECT m.run_id, m.name, sum(m.amount)
                FROM moved m JOIN run ON run.id = m.run_id
                GROUP BY m.run_id, m.name
                ON CONFLICT (run_id, name) DO UPDATE SET amount = t.amount + excluded.amount
            )
            SELECT count(*) FROM moved
            """
        ),
        {"most": _AT_ONCE},
    )
    return int(moved.scalar_one())
