"""Workers of one process each hold one connection to Postgres at the most, and none in a job."""

import subprocess
import sys

from nightshift.stores.postgres.database import Database
from tests.stores.ledger_helpers import add_index_run

_SLEEPER = """
import time
from functools import partial
from nightshift.schema.settings import Settings
from nightshift.schema.states import Stage
from nightshift.workers.app import run_worker
from nightshift.workers.do_job import LoadedModel, do_job

def sleep(session, claim, progress, model):
    for _ in range(40):
        time.sleep(0.1)
        progress.step()
    with session.ledger.finish(claim):
        pass

job_function = partial(
    do_job,
    stage_functions={Stage.EMBED: sleep},
    load_model=lambda session, run: LoadedModel(stage=run.stage),
)
raise SystemExit(
    run_worker(Settings(), stages=frozenset(Stage), device="cpu", job_function=job_function)
)
"""

#: A worker names itself in no way that Postgres shows, so the connections of all are counted.
_CONNECTIONS = """
SELECT count(*) FROM pg_stat_activity
WHERE application_name = 'nightshift worker' AND datname = current_database()
"""
_RUNNING = "SELECT count(*) FROM job WHERE state = 'running'"
_WORKERS = 2


def test_a_worker_holds_one_connection_at_the_most_and_none_while_it_computes(night):
    with Database(night.settings.database_url.get_secret_value()) as database:
        run_id = add_index_run(database, n_jobs=3 * _WORKERS)
    workers = [
        subprocess.Popen([sys.executable, "-c", _SLEEPER], env=night.environment())
        for _ in range(_WORKERS)
    ]
    max_open, while_all_compute = 0, []

    def watched() -> str | None:
        nonlocal max_open
        ((running,),) = night.rows(_RUNNING)
        ((open_now,),) = night.rows(_CONNECTIONS)
        max_open = max(max_open, open_now)
        if running == _WORKERS:
            while_all_compute.append(open_now)
        return night.rows("SELECT 1 FROM job WHERE state = 'done' OFFSET 5") and "done"

    try:
        night.wait_until(watched, timeout_s=200)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()

    assert run_id
    assert max_open <= _WORKERS
    # Renewals and reports open one for some milliseconds.
    assert while_all_compute.count(0) > len(while_all_compute) / 2


def test_a_sleeping_worker_imports_no_library_of_models_images_or_milvus(night):
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, nightshift.workers.app; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    assert "nightshift.workers.do_job" in loaded
    heavy = {"torch", "transformers", "pymilvus", "grpc", "pyarrow", "PIL", "numpy", "alembic"}
    assert heavy.isdisjoint(loaded)
