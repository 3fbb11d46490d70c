"""Retry a job whose attempt failed, cut it in two, or record the failure of a lone unit."""

from collections.abc import Sequence
from typing import TypeVar

from sqlalchemy import Connection, func, select, text, update

from nightshift.schema.item_tables import Item
from nightshift.schema.ledger_tables import Job
from nightshift.schema.messages import BlockPayload, Payload, ScorePayload, parse_payload
from nightshift.schema.query_tables import Query
from nightshift.schema.states import JobState, Stage, SubjectKind
from nightshift.stores.failures import record_failure
from nightshift.stores.ledger.counters import runs_with_running_jobs

__all__ = [
    "expire_leases",
    "retry_or_split",
    "split_payload",
]

_T = TypeVar("_T")

_BACKOFF_S = 2.0
_BACKOFF_MAX_S = 300.0
#: A worker reports every 3 s, from a thread that a long forward does not hold up.
_SILENT_S = 5.0


def retry_or_split(
    connection: Connection,
    *,
    run_id: int,
    job_id: int,
    token: int,
    reason: str,
    message: str,
    max_attempts: int,
) -> None:
    """Requeue with exponential back-off and jitter; after `max_attempts` bisect; a lone unit fails.

    Does nothing where the token is stale.
    """
    job = connection.execute(
        select(Job.stage, Job.queue, Job.payload, Job.attempt, Job.outage_since)
        .where(
            Job.run_id == run_id,
            Job.id == job_id,
            Job.token == token,
            Job.state == JobState.RUNNING,
        )
        .with_for_update(),
    ).one_or_none()
    if job is None:
        return
    error = f"{reason}: {message}"
    if job.attempt < max_attempts:
        connection.execute(
            _REQUEUE,
            {
                "run": run_id,
                "job": job_id,
                "error": error,
                "base": _BACKOFF_S,
                "longest": _BACKOFF_MAX_S,
            },
        )
        return
    payload = parse_payload(job.stage, job.payload)
    halves = split_payload(payload)
    if halves is None:
        _end(connection, run_id, job_id, JobState.FAILED, error)
        _record_lone_unit(connection, run_id, job.stage, payload, reason, message)
        return
    _end(connection, run_id, job_id, JobState.SPLIT, error)
    for half in halves:
        connection.execute(
            _ADD_HALF,
            {
                "run": run_id,
                "since": job.outage_since,
                "stage": job.stage.value,
                "queue": job.queue,
                "payload": half.model_dump_json(),
                "units": half.n_units,
            },
        )


def expire_leases(connection: Connection, *, max_attempts: int) -> int:
    """Take back jobs whose lease ran out; their worker died, hung or was frozen.

    An attempt that its worker did not survive counts like any other, so what kills workers is
    found by bisecting too.

    Returns:
        How many were taken back.
    """
    run_ids = runs_with_running_jobs(connection)
    if not run_ids:
        return 0
    expired = connection.execute(_EXPIRED, {"silent": _SILENT_S, "runs": run_ids}).all()
    for job in expired:
        reason, message = _SILENT if job.silent else _IDLE
        retry_or_split(
            connection,
            run_id=job.run_id,
            job_id=job.id,
            token=job.token,
            reason=reason,
            message=message.format(job.worker_id),
            max_attempts=max_attempts,
        )
    return len(expired)


_SILENT = (
    "worker_lost",
    (
        "worker {} stopped responding during this job, as a process does that crashes, is killed "
        "for want of memory, or is cut off: see its log, and the kernel's"
    ),
)
_IDLE = ("lease_expired", "worker {} made no progress or died")


def split_payload(payload: Payload) -> tuple[Payload, Payload] | None:
    """The two halves of a job's work; None for a lone unit."""
    if isinstance(payload, BlockPayload):
        return _split_block(payload)
    # A list is scored as a whole.
    return _split_lists(payload) if payload.lists else _split_groups(payload)


def _end(connection: Connection, run_id: int, job_id: int, state: JobState, error: str) -> None:
    connection.execute(
        update(Job)
        .where(Job.run_id == run_id, Job.id == job_id)
        .values(
            state=state,
            lease_until=None,
            error=error,
            n_failed=Job.n_units if state is JobState.FAILED else 0,
            finished_at=func.clock_timestamp(),
        )
    )


def _record_lone_unit(
    connection: Connection,
    run_id: int,
    stage: Stage,
    payload: Payload,
    reason: str,
    message: str,
) -> None:
    fatal = True
    if isinstance(payload, ScorePayload):
        kind = SubjectKind.PAIR
        rows = connection.execute(
            _NAME_PAIRS,
            {
                "queries": [query_id for query_id, _ in payload.pairs()],
                "items": [item_id for _, item_id in payload.pairs()],
            },
        )
        subjects = [row.pair for row in rows]
        # A pair that only its tie is asked about has its score.
        fatal = payload.asks == "score"
    else:
        of_items = stage in (Stage.EMBED, Stage.CODEBOOK, Stage.TOKENS)
        kind = SubjectKind.ITEM if of_items else SubjectKind.QUERY
        table = Item if of_items else Query
        subject = connection.execute(
            select(table.external_id).where(table.id == payload.ids[0])
        ).scalar()
        subjects = [str(subject)]
    for subject in subjects:
        record_failure(
            connection,
            run_id=run_id,
            stage=stage.value,
            subject_kind=kind,
            subject_id=subject,
            reason=reason,
            message=message,
            fatal=fatal,
        )


def _split_block(block: BlockPayload) -> tuple[Payload, Payload] | None:
    if len(block.ids) < 2:
        return None
    first, second = _halves(block.ids)
    return BlockPayload(ids=first), BlockPayload(ids=second)


def _split_lists(score: ScorePayload) -> tuple[Payload, Payload] | None:
    if len(score.groups) < 2:
        return None
    first, second = _halves(score.groups)
    return (
        score.model_copy(update={"groups": first}),
        score.model_copy(update={"groups": second}),
    )


def _split_groups(score: ScorePayload) -> tuple[Payload, Payload] | None:
    pairs = [(shared, other) for shared, others in score.groups for other in others]
    if len(pairs) < 2:
        return None
    first, second = _halves(pairs)
    return (
        score.model_copy(update={"groups": _regroup(first)}),
        score.model_copy(update={"groups": _regroup(second)}),
    )


def _halves(values: Sequence[_T]) -> tuple[tuple[_T, ...], tuple[_T, ...]]:
    middle = len(values) // 2
    return tuple(values[:middle]), tuple(values[middle:])


def _regroup(pairs: Sequence[tuple[int, int]]) -> tuple[tuple[int, tuple[int, ...]], ...]:
    groups: dict[int, list[int]] = {}
    for shared, other in pairs:
        groups.setdefault(shared, []).append(other)
    return tuple((shared, tuple(others)) for shared, others in groups.items())


# Queues a job again with exponential back-off and jitter.
_REQUEUE = text(
    """
    UPDATE job SET state = 'queued', lease_until = NULL, sent_at = NULL,
        worker_id = NULL, error = :error,
        not_before = clock_timestamp() + make_interval(
            secs => least(:base * 2 ^ (attempt - 1), :longest) * (0.5 + random()))
    WHERE run_id = :run AND id = :job
    """
)

# Adds a half of a job under the next free id of its run.
_ADD_HALF = text(
    """
    INSERT INTO job (run_id, id, stage, queue, payload, n_units, outage_since)
    SELECT :run, max(id) + 1, :stage, :queue, :payload, :units, :since FROM job
    WHERE run_id = :run
    """
)

# Locks jobs whose lease ran out, and reads whether their worker stopped reporting. With the runs
# named, Postgres plans over their partitions and over no others. A row that a frozen worker holds
# in its last transaction is left until that has ended.
_EXPIRED = text(
    """
    SELECT run_id, id, token, worker_id, (
        SELECT seen_at < clock_timestamp() - make_interval(secs => :silent) FROM worker
        WHERE worker.id = worker_id) AS silent
    FROM job WHERE run_id = ANY(:runs) AND state = 'running' AND lease_until < clock_timestamp()
    ORDER BY run_id, id LIMIT 500 FOR UPDATE SKIP LOCKED
    """
)

# Names pairs by the external ids of their query and item.
_NAME_PAIRS = text(
    """
    SELECT q.external_id || ' → ' || i.external_id AS pair
    FROM unnest(CAST(:queries AS bigint[]), CAST(:items AS bigint[])) AS w(query, item)
    JOIN query q ON q.id = w.query JOIN item i ON i.id = w.item
    """
)
