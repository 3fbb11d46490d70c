"""A person pauses, resumes and cancels a run that is being worked on."""

import json

from tests.nights.night import Night


def _jobs(night: Night, run_id: int, *states: str) -> int:
    rows = night.rows(
        "SELECT count(*) FROM job WHERE run_id = :r AND stage = 'score' AND state = ANY(:s)",
        r=run_id,
        s=list(states),
    )
    return int(str(rows[0][0]))


def _begun_after(night: Night, run_id: int, moment: object) -> list[tuple[object, ...]]:
    return night.rows(
        "SELECT id FROM job WHERE run_id = :r AND started_at > :at", r=run_id, at=moment
    )


def test_nothing_is_begun_while_a_run_is_paused_and_nothing_is_lost(indexed_night, scenes, scorer):
    night = indexed_night
    done = night.cli("rerank", "scenes", "--queries", str(scenes / "queries-text.jsonl"),
                     "--scorer", scorer, "--top-k", "96", "--json")  # fmt: skip
    run_id = json.loads(done.stdout)["run_id"]
    night.wait_until(lambda: _jobs(night, run_id, "running") and "begun")

    night.cli("run", "pause", str(run_id))
    ((paused_at,),) = night.rows("SELECT clock_timestamp()")
    night.wait_until(lambda: not _jobs(night, run_id, "running") and "handed back")
    assert _jobs(night, run_id, "queued"), "it was paused in the middle"
    # Another run is served meanwhile, so that worker and dispatcher do not merely sleep.
    night.cli("rerank", "scenes", "--queries", str(scenes / "queries-text.jsonl"), "--scorer",
              scorer, "--top-k", "2", "--item-parts", "text", "--wait", "--json")  # fmt: skip
    assert _begun_after(night, run_id, paused_at) == []
    attempts = "SELECT max(attempt) FROM job WHERE run_id = :r AND state = 'queued'"
    assert night.rows(attempts, r=run_id) == [(0,)]

    night.cli("run", "resume", str(run_id))
    night.wait_until(lambda: _begun_after(night, run_id, paused_at) and "resumed")
    night.cli("run", "cancel", str(run_id))
    ((cancelled_at,),) = night.rows("SELECT clock_timestamp()")
    night.wait_until(lambda: not _jobs(night, run_id, "running") and "handed back")
    assert _begun_after(night, run_id, cancelled_at) == []
    assert night.cli("run", "resume", str(run_id), check=False).returncode == 4
