"""Hand back a job that met an outage; an outage that only this job meets costs attempts."""

from sqlalchemy import Connection, text

from nightshift.schema.messages import parse_payload
from nightshift.schema.states import Stage
from nightshift.stores.ledger.retries import retry_or_split, split_payload

__all__ = ["hand_back_from_outage"]

_REASON = "service_unavailable"
#: A job pauses for a quarter of the time that its outages have lasted, within these seconds.
_MIN_PAUSE_S, _MAX_PAUSE_S = 0.2, 30.0
#: A stage's only job is cut in two after so many seconds: one half may show that the service works.
_ONLY_JOB_S = 30.0


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
        _NOTE_OUTAGE, {"run": run_id, "job": job_id, "token": token}
    ).one_or_none()
    if job is None:
        return
    others = connection.execute(
        _OTHER_JOBS,
        {"run": run_id, "job": job_id, "stage": job.stage, "since": job.outage_since},
    ).one()
    is_only_job = not others.wait and job.lasted_s > _ONLY_JOB_S
    can_split = split_payload(parse_payload(Stage(job.stage), job.payload)) is not None
    if others.finish or (is_only_job and can_split):
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
        _HAND_BACK,
        {
            "run": run_id,
            "job": job_id,
            "message": message,
            "pause": min(max(job.lasted_s / 4, _MIN_PAUSE_S), _MAX_PAUSE_S),
        },
    )


# Notes when the first outage of a claimed job began, and reads how long ago that was.
_NOTE_OUTAGE = text(
    """
    UPDATE job SET outage_since = coalesce(outage_since, clock_timestamp())
    WHERE run_id = :run AND id = :job AND token = :token AND state = 'running'
    RETURNING stage, payload, outage_since,
        extract(epoch FROM clock_timestamp() - outage_since)::float8 AS lasted_s
    """
)

# Reads of a stage's other jobs whether one was done since the outage began, and whether one waits.
_OTHER_JOBS = text(
    """
    SELECT coalesce(bool_or(state = 'done' AND finished_at > :since), false) AS finish,
        coalesce(bool_or(state IN ('queued', 'running')), false) AS wait
    FROM job WHERE run_id = :run AND stage = :stage AND id <> :job
    """
)

# Queues a job again after a pause, and gives its attempt back.
_HAND_BACK = text(
    """
    UPDATE job SET state = 'queued', lease_until = NULL, sent_at = NULL,
        worker_id = NULL, attempt = greatest(attempt - 1, 0), error = :message,
        not_before = clock_timestamp() + make_interval(secs => :pause)
    WHERE run_id = :run AND id = :job
    """
)
