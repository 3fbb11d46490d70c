"""What becomes of a job whose attempt failed: later again, in two halves, or a recorded failure."""

import json
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, text

from nightshift.schema.messages import BlockPayload, ScorePayload
from nightshift.schema.states import Stage, SubjectKind
from nightshift.stores.failures import record_failure
from nightshift.stores.ledger.progress_counts import runs_with_running_jobs

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
        text(
            "SELECT stage, queue, payload, attempt, outage_since FROM job "
            "WHERE run_id = :run AND id = :job AND token = :token "
            "AND state = 'running' FOR UPDATE"
        ),
        {"run": run_id, "job": job_id, "token": token},
    ).one_or_none()
    if job is None:
        return
    error = f"{reason}: {message}"
    if job.attempt < max_attempts:
        connection.execute(
            text(
                """
                UPDATE job SET state = 'queued', lease_until = NULL, sent_at = NULL,
                    worker_id = NULL, error = :error,
                    not_before = clock_timestamp() + make_interval(
                        secs => least(:base * 2 ^ (attempt - 1), :most) * (0.5 + random()))
                WHERE run_id = :run AND id = :job
                """
            ),
            {
                "run": run_id,
                "job": job_id,
                "error": error,
                "base": _BACKOFF_S,
                "most": _BACKOFF_MAX_S,
            },
        )
        return
    halves = split_payload(Stage(job.stage), job.payload)
    if halves is None:
        _end(connection, run_id, job_id, "failed", error)
        _record_lone(connection, run_id, job, reason, message)
        return
    _end(connection, run_id, job_id, "split", error)
    for payload, n_units in halves:
        connection.execute(
            text(
                """
                INSERT INTO job (run_id, id, stage, queue, payload, n_units, outage_since)
                SELECT :run, max(id) + 1, :stage, :queue, :payload, :units, :since FROM job
                WHERE run_id = :run
                """
            ),
            {
                "run": run_id,
                "since": job.outage_since,
                "stage": job.stage,
                "queue": job.queue,
                "payload": json.dumps(payload),
                "units": n_units,
            },
        )


def expire_leases(connection: Connection, *, max_attempts: int) -> int:
    """Take back jobs whose lease ran out; their worker died, hung or was frozen.

    An attempt that its worker did not survive counts like any other, so what kills workers is
    found by bisecting too.

    Returns:
        How many were taken back.
    """
    held = runs_with_running_jobs(connection)
    if not held:
        return 0
    expired = connection.execute(
        text(
            "SELECT run_id, id, token, worker_id, (SELECT seen_at < clock_timestamp() - "
            "make_interval(secs => :silent) FROM worker WHERE worker.id = worker_id) AS silent "
            # With the runs named, Postgres plans over their partitions and over no others.
            "FROM job WHERE run_id = ANY(:runs) AND state = 'running' "
            "AND lease_until < clock_timestamp() ORDER BY run_id, id LIMIT 500 "
            # A worker that froze inside its last transaction holds the row until that is ended.
            "FOR UPDATE SKIP LOCKED"
        ),
        {"silent": _SILENT_S, "runs": held},
    ).all()
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
        "worker {} fell silent at this job, as a process does that crashes, is killed for want of "
        "memory, or is cut off: see its log, and the kernel's"
    ),
)
_IDLE = ("lease_expired", "worker {} made no progress or died")


def split_payload(stage: Stage, payload: dict[str, Any]) -> list[tuple[dict[str, Any], int]] | None:
    """Two halves of a job's work with their units; None for a lone unit."""
    if stage is Stage.SCORE:
        score = ScorePayload.model_validate(payload)
        if score.lists:
            # A list is scored as a whole.
            return _list_halves(score)
        pairs = [(shared, other) for shared, others in score.groups for other in others]
        if len(pairs) < 2:
            return None
        return [
            (score.model_copy(update={"groups": _regroup(half)}).model_dump(mode="json"), len(half))
            for half in _halves(pairs)
        ]
    ids = BlockPayload.model_validate(payload).ids
    if len(ids) < 2:
        return None
    return [
        (BlockPayload(ids=tuple(half)).model_dump(mode="json"), len(half))
        for half in _halves(list(ids))
    ]


def _end(connection: Connection, run_id: int, job_id: int, state: str, error: str) -> None:
    connection.execute(
        text(
            """
            UPDATE job SET state = :state, lease_until = NULL, error = :error,
                n_failed = CASE WHEN :state = 'failed' THEN n_units ELSE 0 END,
                finished_at = clock_timestamp()
            WHERE run_id = :run AND id = :job
            """
        ),
        {"run": run_id, "job": job_id, "state": state, "error": error},
    )


def _record_lone(
    connection: Connection, run_id: int, job: Row[Any], reason: str, message: str
) -> None:
    if job.stage == Stage.SCORE:
        score = ScorePayload.model_validate(job.payload)
        kind = SubjectKind.PAIR
        found = connection.execute(
            text(
                """
                SELECT q.external_id || ' → ' || i.external_id AS pair
                FROM unnest(CAST(:queries AS bigint[]), CAST(:items AS bigint[])) AS w(query, item)
                JOIN query q ON q.id = w.query JOIN item i ON i.id = w.item
                """
            ),
            {
                "queries": [query for query, _ in score.pairs()],
                "items": [item for _, item in score.pairs()],
            },
        )
        subjects = [row.pair for row in found]
        # A pair that only its tie is asked about has its score.
        fatal = score.asks == "score"
    else:
        of_items = job.stage in (Stage.EMBED, Stage.CODEBOOK, Stage.TOKENS)
        kind = SubjectKind.ITEM if of_items else SubjectKind.QUERY
        subject = connection.execute(
            text(f"SELECT external_id FROM {kind.value} WHERE id = :id"),
            {"id": BlockPayload.model_validate(job.payload).ids[0]},
        ).scalar()
        subjects, fatal = [str(subject)], True
    for subject in subjects:
        record_failure(
            connection,
            run_id=run_id,
            stage=job.stage,
            subject_kind=kind,
            subject_id=subject,
            reason=reason,
            message=message,
            fatal=fatal,
        )


def _list_halves(score: ScorePayload) -> list[tuple[dict[str, Any], int]] | None:
    if len(score.groups) < 2:
        return None
    halves = [score.model_copy(update={"groups": half}) for half in _halves(list(score.groups))]
    return [(half.model_dump(mode="json"), len(half.pairs())) for half in halves]


def _halves(values: list[_T]) -> tuple[list[_T], list[_T]]:
    middle = len(values) // 2
    return values[:middle], values[middle:]


def _regroup(pairs: list[tuple[int, int]]) -> tuple[tuple[int, tuple[int, ...]], ...]:
    groups: dict[int, list[int]] = {}
    for shared, other in pairs:
        groups.setdefault(shared, []).append(other)
    return tuple((shared, tuple(others)) for shared, others in groups.items())
