"""Workers come and go in the middle of a run; the result is that of an undisturbed night."""

import json
import os
import signal
from pathlib import Path

import pytest
import redis

from tests.nights.night import Night

#: Of 96 items: enough pairs for scoring to last a few seconds.
_DEPTH = 80

_RESULT = (
    "SELECT query, item, final_rank, decided_by, round(margin::numeric, 4) FROM v_ranking "
    "WHERE run_id = :run ORDER BY query, final_rank"
)


def _index(night: Night, scenes: Path, embedder: str) -> None:
    night.cli("catalog", "import", "scenes", str(scenes / "items.jsonl"), "--json")
    night.cli("index", "build", "scenes", "--embedder", embedder, "--wait", "--json")


def _start(night: Night, scenes: Path, scorer: str, *more: str) -> int:
    done = night.cli("rerank", "scenes", "--queries", str(scenes / "queries-text.jsonl"),
                     "--scorer", scorer, "--top-k", str(_DEPTH), "--json", *more)  # fmt: skip
    return int(json.loads(done.stdout)["run_id"])


def _scoring(night: Night, run_id: int, pid: int):
    def check() -> str | None:
        held = night.rows(
            "SELECT worker_id FROM job WHERE run_id = :r AND stage = 'score' "
            "AND state = 'running' AND worker_id LIKE :w",
            r=run_id,
            w=f"%:{pid}:%",
        )
        return "yes" if held else None

    return check


def test_a_second_worker_takes_part_at_once_and_a_killed_one_loses_nothing(
    night, scenes, embedder, scorer
):
    first = night.worker()
    _index(night, scenes, embedder)
    run_id = _start(night, scenes, scorer)
    night.wait_until(_scoring(night, run_id, first.pid))
    os.kill(first.pid, signal.SIGSTOP)
    second = night.worker()
    night.wait_until(_scoring(night, run_id, second.pid))

    os.kill(first.pid, signal.SIGKILL)

    assert night.wait_for_run(run_id) == "done"
    disturbed = night.rows(_RESULT, run=run_id)
    assert len(disturbed) == 12 * _DEPTH
    # Or the second run would reuse the scores instead of computing them.
    night.rows("DELETE FROM score WHERE run_id = :r RETURNING 1", r=run_id)
    undisturbed = _start(night, scenes, scorer, "--wait")
    assert night.rows(_RESULT, run=undisturbed) == disturbed
    assert night.rows("SELECT count(*) FROM failure") == [(0,)]


@pytest.mark.night
def test_a_frozen_worker_that_wakes_late_overwrites_nothing(night, scenes, embedder, scorer):
    zombie = night.worker()
    _index(night, scenes, embedder)
    run_id = _start(night, scenes, scorer)
    night.wait_until(_scoring(night, run_id, zombie.pid))
    os.kill(zombie.pid, signal.SIGSTOP)
    night.worker()
    assert night.wait_for_run(run_id) == "done"
    before = night.rows(_RESULT, run=run_id)

    os.kill(zombie.pid, signal.SIGCONT)
    night.wait_until(lambda: ("given to another worker" in night.log_of(zombie) and "yes") or None)

    assert night.rows(_RESULT, run=run_id) == before
    assert night.rows("SELECT max(attempt) FROM job WHERE run_id = :r", r=run_id) == [(2,)]


@pytest.mark.night
def test_a_flushed_redis_loses_nothing(night, scenes, embedder, scorer):
    worker = night.worker()
    _index(night, scenes, embedder)
    run_id = _start(night, scenes, scorer)
    night.wait_until(_scoring(night, run_id, worker.pid))
    os.kill(worker.pid, signal.SIGSTOP)

    with redis.Redis.from_url(night.settings.redis_url.get_secret_value()) as client:
        client.flushdb()
    os.kill(worker.pid, signal.SIGCONT)

    assert night.wait_for_run(run_id) == "done"
    assert len(night.rows(_RESULT, run=run_id)) == 12 * _DEPTH


@pytest.mark.night
def test_workers_stopped_and_replaced_in_the_middle_change_nothing_in_the_result(
    night, scenes, embedder, scorer
):
    first = night.worker()
    _index(night, scenes, embedder)
    run_id = _start(night, scenes, scorer)
    night.wait_until(_scoring(night, run_id, first.pid))

    first.terminate()
    first.wait(60)
    left = night.rows("SELECT count(*) FROM job WHERE run_id = :r AND state <> 'done'", r=run_id)
    night.worker()

    assert left != [(0,)], "it was stopped in the middle"
    assert night.wait_for_run(run_id) == "done"
    assert night.rows("SELECT max(attempt) FROM job WHERE run_id = :r", r=run_id) == [(1,)]
    stopped = night.rows("SELECT count(*) FROM worker WHERE stopped_at IS NOT NULL")
    assert stopped == [(1,)]
    replaced = night.rows(_RESULT, run=run_id)
    # Or the second run would reuse the scores instead of computing them.
    night.rows("DELETE FROM score WHERE run_id = :r RETURNING 1", r=run_id)
    undisturbed = _start(night, scenes, scorer, "--wait")
    assert night.rows(_RESULT, run=undisturbed) == replaced


def test_a_worker_goes_on_when_redis_was_away_as_its_job_ended(
    night, stack, scenes, embedder, scorer
):
    worker = night.worker()
    _index(night, scenes, embedder)
    run_id = _start(night, scenes, scorer)
    night.wait_until(_scoring(night, run_id, worker.pid))

    stack.kill("redis")
    try:
        night.wait_until(lambda: ("Couldn't ack" in night.log_of(worker) and "yes") or None)
    finally:
        stack.up(0, dispatcher=False)

    assert night.wait_for_run(run_id) == "done"
