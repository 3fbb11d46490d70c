"""A job meets a service that is away or damaged, and costs itself no attempt by it."""

from threading import Timer
from types import SimpleNamespace

import numpy as np
import psycopg2
from sqlalchemy import make_url, text

from nightshift.cli.wait import wait_for_run
from nightshift.schema.states import RunState, Stage
from nightshift.stores import leases, runs
from nightshift.stores.ledger import Ledger
from nightshift.stores.milvus import VectorStore
from nightshift.workers import do_job
from nightshift.workers.do_job import _hand_back
from nightshift.workers.search import _search
from tests.stores.damage import tear_index
from tests.stores.ledger_helpers import add_index_run, job_row


def test_a_job_is_handed_back_once_postgres_returns(stack, database_url, database):
    run_id = add_index_run(database)
    ledger = Ledger(database, worker_id="a", lease_s=30, max_attempts=3)
    claim = ledger.claim(run_id, 1)
    assert claim is not None
    _take_away_for_half_a_second(stack, database_url)
    session = SimpleNamespace(ledger=ledger, settings=SimpleNamespace(lease_s=30.0))

    _hand_back(session, claim, "Postgres is away")

    row = job_row(database, run_id, 1)
    assert (row.state, row.attempt) == ("queued", 0)


def test_a_job_whose_turn_to_write_went_to_another_worker_is_handed_back(database, monkeypatch):
    run_id = add_index_run(database)
    ledger = Ledger(database, worker_id="a", lease_s=30, max_attempts=3)
    claim = ledger.claim(run_id, 1)
    with database.begin() as connection:
        run = runs.get_run(connection, run_id)
    session = SimpleNamespace(ledger=ledger, settings=SimpleNamespace(lease_s=30.0), neighbours=1)

    def write(*_):
        with leases.hold(database, "milvus-writer", "a"), database.begin() as connection:
            connection.execute(text("UPDATE lease SET holder = 'b', token = token + 1"))

    monkeypatch.setitem(do_job._STAGES, Stage.EMBED, write)
    do_job._do_claimed(session, run, claim, None)

    row = job_row(database, run_id, 1)
    assert (row.state, row.attempt) == ("queued", 0)
    assert "milvus-writer" in row.error


def test_who_waits_for_a_run_outlasts_a_restart_of_postgres(stack, database_url, database):
    run_id = add_index_run(database)
    with database.begin() as connection:
        runs.set_run_state(connection, run_id, RunState.DONE)
    _take_away_for_half_a_second(stack, database_url)

    assert wait_for_run(database, run_id, quiet=True) is RunState.DONE


def test_a_search_mends_an_index_that_a_kill_has_torn(stack, database, vector_store):
    vectors = np.eye(8, dtype=np.float32)
    keys = [f"{number:064x}" for number in range(8)]
    vector_store.create("torn_while_searched", dim=8)
    vector_store.upsert("torn_while_searched", keys, vectors)
    vector_store.flush("torn_while_searched")
    tear_index(stack, vector_store, "torn_while_searched")

    with VectorStore(stack.urls().milvus_uri, stack.urls().milvus_token) as fresh:
        session = SimpleNamespace(database=database, vectors=fresh, worker_id="a")
        progress = SimpleNamespace(step=lambda: None)
        found = _search(session, "torn_while_searched", vectors, 1, progress)

    assert [hits[0].key for hits in found] == keys


def _take_away_for_half_a_second(stack, database_url: str) -> None:
    name = make_url(database_url).database
    _administer(stack, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    _administer(
        stack, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    )
    Timer(0.5, _administer, (stack, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")).start()


def _administer(stack, statement: str) -> None:
    url = make_url(stack.urls().database_url).set(drivername="postgresql", database="postgres")
    connection = psycopg2.connect(url.render_as_string(hide_password=False))
    connection.autocommit = True
    try:
        connection.cursor().execute(statement)
    finally:
        connection.close()
