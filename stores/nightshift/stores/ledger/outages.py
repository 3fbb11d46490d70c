"""What becomes of a job that met an outage: it waits, unless the outage is its own doing."""

from sqlalchemy import Connection, text

from nightshift.schema.messages import parse_payload
from nightshift.schema.states import Stage
from nightshift.stores.ledger.retries import retry_or_split, split_payload

__all__ = ["hand_back_from_outage"]

_REASON = "service_unavailable"
#: A job pauses for a quarter of the time that its outages have lasted, within these seconds.
_LEAST_S, _MOST_S = 0.2, 30.0
#: A stage's only job is cut in two after so many seconds: one half may show that the service works.
_ALONE_S = 30.0


def hand_back_from_outage(
    connection: Connection,
    *,
    run_id: int,
    job_id: int,
    token: int,
    message: str,
    max_attempts: int,
) -> None:
    """Give back a job that a service did not let finish.

    The first outage costs a job no attempt, nor does any that the others of its stage see too.
    Where they finish meanwhile, the service works and the outage is the job's own: it writes more
    than the disk holds, say. Then each outage costs an attempt, so that the job is cut in two and
    the item at fault fails in the end. The halves of a job inherit when its outages began.

    Does nothing where the token is stale.
    """
    job = connection.execute(
        text(
            """
            UPDATE job SET outage_since = coalesce(outage_since, clock_timestamp())
            WHERE run_id = :run AND id = :job AND token = :token AND state = 'running'
            RETURNING stage, payload, outage_since,
                extract(epoch FROM clock_timestamp() - outage_since)::float8 AS lasted_s
            """
        ),
        {"run": run_id, "job": job_id, "token": token},
    ).one_or_none()
    if job is None:
        return
    others = connection.execute(
        text(
            """
            SELECT coalesce(bool_or(state = 'done' AND finished_at > :since), false) AS finish,
                coalesce(bool_or(state IN ('queued', 'running')), false) AS wait
            FROM job WHERE run_id = :run AND stage = :stage AND id <> :job
            """
        ),
        {"run": run_id, "job": job_id, "stage": job.stage, "since": job.outage_since},
    ).one()
    alone = not others.wait and job.lasted_s > _ALONE_S
    if others.finish or (
        alone and split_payload(parse_payload(Stage(job.stage), job.payload)) is not None
    ):
        retry_or_split(
            connection,
            run_id=run_id,
            job_id=job_id,
            token=token,
            reason=_REASON,
            message=message,
            max_attempts=max_attempts if others.finish else 0,
        )
        return
    connection.execute(
        text(
            """
            UPDATE job SET state = 'queued', lease_until = NULL, sent_at = NULL,
                worker_id = NULL, attempt = greatest(attempt - 1, 0), error = :message,
                not_before = clock_timestamp() + make_interval(secs => :pause)
            WHERE run_id = :run AND id = :job
            """
        ),
        {
            "run": run_id,
            "job": job_id,
            "message": message,
            "pause": min(max(job.lasted_s / 4, _LEAST_S), _MOST_S),
        },
    )
