"""A worker in the middle of a long forward is asked to stop: its job is free in time."""

import signal
import subprocess
import sys

import pytest

from nightshift.stores.postgres.database import Database
from tests.stores.ledger_helpers import add_index_run

_LONG_FORWARD = """
import time
from functools import partial
from nightshift.schema.settings import Settings
from nightshift.schema.states import Stage
from nightshift.workers.app import run_worker
from nightshift.workers.do_job import LoadedModel, do_job

def forward(*_):
    while True:
        time.sleep(0.1)

job_function = partial(
    do_job,
    stage_functions={Stage.EMBED: forward},
    load_model=lambda session, run: LoadedModel(stage=run.stage),
)
raise SystemExit(
    run_worker(Settings(), stages=frozenset(Stage), device="cpu", job_function=job_function)
)
"""


@pytest.mark.parametrize(("grace_s", "signals"), [(1, 1), (10_000, 2)])
def test_its_job_is_handed_back_after_the_grace_period_or_at_a_second_sigterm(
    night, tmp_path, grace_s, signals
):
    with Database(night.settings.database_url.get_secret_value()) as database:
        run_id = add_index_run(database, n_jobs=1)
    environment = night.environment() | {
        "NIGHTSHIFT_GRACE_S": str(grace_s),
        "NIGHTSHIFT_LEASE_S": "10000",
    }
    log = tmp_path / "worker.log"
    with log.open("wb") as out:
        worker = subprocess.Popen(
            [sys.executable, "-c", _LONG_FORWARD], env=environment, stdout=out
        )
    job = "SELECT {} FROM job WHERE run_id = :r AND state = '{}'"
    try:
        night.wait_until(
            lambda: night.rows(job.format("1", "running"), r=run_id) and "claimed", timeout_s=200
        )
        for _ in range(signals):
            worker.send_signal(signal.SIGTERM)
            night.wait_until(lambda: ("Warm shutdown" in log.read_text() and "heard") or None)
        assert worker.wait(120) == 0
    finally:
        worker.kill()

    assert night.rows(job.format("attempt, error", "queued"), r=run_id) == [
        (0, "the worker is stopping")
    ]
    assert night.rows("SELECT count(*) FROM worker WHERE stopped_at IS NULL") == [(0,)]
