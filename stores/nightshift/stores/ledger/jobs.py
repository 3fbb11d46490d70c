"""The jobs of a run as planners see them: how many there are, and at what rate they were done."""

from collections.abc import Iterable

from sqlalchemy import Connection, text

from nightshift.schema.messages import Payload, queue_name
from nightshift.schema.states import Stage
from nightshift.stores.postgres.database import copy_rows

__all__ = ["add_jobs", "stage_rate", "unfinished_jobs"]


def add_jobs(
    connection: Connection, run_id: int, stage: Stage, queue: str, payloads: Iterable[Payload]
) -> int:
    """COPY queued jobs into the ledger, one for each payload, numbered on from the run's last.

    Returns:
        How many.
    """
    first = 1 + int(
        connection.execute(
            text("SELECT coalesce(max(id), 0) FROM job WHERE run_id = :run"), {"run": run_id}
        ).scalar_one()
    )
    columns = ("run_id", "id", "stage", "queue", "payload", "n_units", "state", "attempt", "token",
               "n_failed", "not_before")  # fmt: skip
    return copy_rows(
        connection,
        "job",
        columns,
        (
            (run_id, number, stage.value, queue, payload.model_dump_json(), payload.n_units,
             "queued", 0, 0, 0, "-infinity")
            for number, payload in enumerate(payloads, first)
        ),
    )  # fmt: skip


def unfinished_jobs(connection: Connection, run_id: int, stage: Stage) -> int:
    """Jobs of a stage that are still queued or running."""
    return int(
        connection.execute(
            text(
                "SELECT count(*) FROM (SELECT FROM job WHERE run_id = :run AND stage = :stage "
                "AND state IN ('queued', 'running') LIMIT 1) AS unfinished"
            ),
            {"run": run_id, "stage": stage.value},
        ).scalar_one()
    )


def stage_rate(connection: Connection, stage: Stage, model_fingerprint: str | None) -> float | None:
    """Units a second of one worker, in the last three runs that did this with this model.

    None where none of the last ten runs with the model had such work.
    """
    last = connection.execute(
        text(
            """
            SELECT run.id FROM run LEFT JOIN "index" ON "index".id = run.index_id
            WHERE CAST(:model AS text) IS NULL
                OR :model IN (run.scorer_fingerprint, "index".embedder_fingerprint)
            ORDER BY run.id DESC LIMIT 10
            """
        ),
        {"model": model_fingerprint},
    )
    rate = connection.execute(
        # With the runs named, Postgres plans over their partitions and over no others.
        text(
            """
            SELECT sum(units) / nullif(sum(seconds), 0) FROM (
                SELECT sum(n_units) AS units,
                    sum(extract(epoch FROM finished_at - started_at)) AS seconds
                FROM job WHERE run_id = ANY(:runs) AND stage = :stage AND queue = :queue
                    AND state = 'done' AND n_units > n_failed
                GROUP BY run_id ORDER BY run_id DESC LIMIT 3
            ) AS each
            """
        ),
        {
            "runs": [row.id for row in last],
            "stage": stage.value,
            "queue": queue_name(stage, model_fingerprint),
        },
    ).scalar()
    return None if rate is None else float(rate)
