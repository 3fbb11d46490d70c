"""A worker that is killed while it loads a model leaves word of it."""

import subprocess
import sys

from sqlalchemy import text

from nightshift.models.checkpoints.describe import describe_embedder
from nightshift.producers.catalog_import import import_catalog
from nightshift.producers.plan_index import plan_index
from nightshift.stores.ledger import load_reports
from tests.nights.night import Night

#: As the kernel ends a process when memory runs out: no handler runs, nothing is given back.
_KILLED_WHILE_LOADING = """
import os, signal, sys
from nightshift.models import cache
from nightshift.schema.settings import Settings
from nightshift.schema.states import Stage
from nightshift.workers.do_job import do_job
from nightshift.workers.session import open_session

cache.load_embedder = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
session = open_session(Settings(), stages=frozenset(Stage), device="cpu")
session.start_reporting()
do_job(session, int(sys.argv[1]), 1)
"""


def test_a_load_that_its_worker_does_not_survive_is_an_attempt_of_the_run(
    settings, database, vector_store, embedder, tmp_path
):
    rows = tmp_path / "texts.csv"
    rows.write_text("id,text\n1,a red circle\n")
    import_catalog(database, "texts", str(rows))
    facts = describe_embedder(embedder)
    run_id = plan_index(database, vector_store, "texts", embedder=facts, parts="text").run_id

    killed = subprocess.run(
        [sys.executable, "-c", _KILLED_WHILE_LOADING, str(run_id)],
        env=Night(settings=settings, logs=tmp_path).environment(),
        capture_output=True,
        timeout=250,
        check=False,
    )

    assert killed.returncode == -9, killed.stderr
    with database.begin() as connection:
        # What the next ones would wait for.
        connection.execute(text("UPDATE worker SET seen_at = seen_at - interval '20 s'"))
        judged = load_reports.fail_runs_that_end_workers(connection, max_attempts=1)
        message = connection.execute(
            text("SELECT message FROM failure WHERE reason = 'worker_lost'")
        ).scalar_one()
        job = connection.execute(text("SELECT state, attempt FROM job")).one()
    assert judged == [run_id]
    assert facts.fingerprint in message
    assert tuple(job) == ("queued", 0)
