"""A worker that is killed while it loads a model leaves word of it."""

import subprocess
import sys

from sqlalchemy import text

from nightshift.models.describe import describe_embedder
from nightshift.producers.catalog_import import import_catalog
from nightshift.producers.plan_index import plan_index
from nightshift.stores import loads
from nightshift.stores.database import Database
from nightshift.stores.milvus import VectorStore

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
    night, embedder, tmp_path
):
    rows = tmp_path / "texts.csv"
    rows.write_text("id,text\n1,a red circle\n")
    with (
        Database(night.settings.database_url.get_secret_value()) as database,
        VectorStore(night.settings.milvus_uri) as vectors,
    ):
        import_catalog(database, "texts", str(rows))
        facts = describe_embedder(embedder)
        run_id = plan_index(database, vectors, "texts", embedder=facts, parts="text").run_id

        killed = subprocess.run(
            [sys.executable, "-c", _KILLED_WHILE_LOADING, str(run_id)],
            env=night.environment(),
            capture_output=True,
            timeout=250,
            check=False,
        )

        assert killed.returncode == -9, killed.stderr
        with database.begin() as connection:
            # What the next ones would wait for.
            connection.execute(text("UPDATE worker SET seen_at = seen_at - interval '20 s'"))
            judged = loads.fail_runs_that_end_workers(connection, max_attempts=1)
    assert judged == [run_id]
    ((message,),) = night.rows("SELECT message FROM failure WHERE reason = 'worker_lost'")
    assert facts.fingerprint in message
    assert night.rows("SELECT state, attempt FROM job") == [("queued", 0)]
