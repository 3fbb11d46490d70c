"""A job meets a service that is away or damaged, and costs itself no attempt by it."""

from threading import Timer
from types import SimpleNamespace

import numpy as np
import psycopg2
from sqlalchemy import make_url, text

from nightshift.api.waiting import wait_for_end
from nightshift.schema.states import RunState, Stage
from nightshift.stores.index.embeddings import write_embeddings
from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.ledger import runs
from nightshift.stores.ledger.claims import Ledger
from nightshift.stores.postgres import named_leases
from nightshift.workers.do_job import LoadedModel, _hand_back, do_claimed
from nightshift.workers.embed import _upsert
from nightshift.workers.search import _search
from tests.stores.index.damage import held, tear_index
from tests.stores.ledger_helpers import add_index_run, job_row, make_due

#: A stage whose function is replaced uses no model.
LOADED = LoadedModel(stage=Stage.EMBED)
#: As Postgres says it where a table cannot grow.
_FULL_AT_THE_FIRST_ITEM = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.item_id = (SELECT min(id) FROM item) THEN
        RAISE 'could not extend file: No space left on device' USING ERRCODE = 'disk_full';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON embedding FOR EACH ROW EXECUTE FUNCTION refuse();
"""


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


def test_a_job_whose_turn_to_write_went_to_another_worker_is_handed_back(database):
    run_id = add_index_run(database)
    ledger = Ledger(database, worker_id="a", lease_s=30, max_attempts=3)
    claim = ledger.claim(run_id, 1)
    session = SimpleNamespace(ledger=ledger, settings=SimpleNamespace(lease_s=30.0), neighbours=1)

    def write(*_):
        with named_leases.hold(database, "milvus-writer", "a"), database.begin() as connection:
            connection.execute(text("UPDATE lease SET holder = 'b', token = token + 1"))

    do_claimed(session, claim, LOADED, {Stage.EMBED: write})

    row = job_row(database, run_id, 1)
    assert (row.state, row.attempt) == ("queued", 0)
    assert "milvus-writer" in row.error


def test_a_job_that_by_itself_fills_the_disk_ends_as_failed_and_the_others_are_done(
    database,
):
    run_id = add_index_run(database, n_jobs=3, per_job=1)
    ledger = Ledger(database, worker_id="a", lease_s=30, max_attempts=2)
    with database.begin() as connection:
        connection.execute(text(_FULL_AT_THE_FIRST_ITEM))
    session = SimpleNamespace(ledger=ledger, settings=SimpleNamespace(lease_s=30.0), neighbours=1)

    def write(_session, claim, _progress, _model):
        run, (item,) = claim.run, claim.payload.ids
        keys = [(item, f"{item:064x}")]
        with ledger.finish(claim) as connection:
            write_embeddings(connection, index_id=run.index_id, run_id=run.id, keys=keys)

    for _ in range(4):
        for job_id in (1, 2, 3):
            make_due(database, run_id)
            if claim := ledger.claim(run_id, job_id):
                do_claimed(session, claim, LOADED, {Stage.EMBED: write})

    assert [job_row(database, run_id, job).state for job in (1, 2, 3)] == ["failed", "done", "done"]
    with database.begin() as connection:
        failure = connection.execute(text("SELECT subject_id, reason, message FROM failure")).one()
    assert failure[:2] == ("item-0", "service_unavailable")
    assert "No space left" in failure.message


def test_who_waits_for_a_lease_that_others_hold_keeps_its_attempts(database):
    run_id = add_index_run(database, n_jobs=2)
    ledger = Ledger(database, worker_id="a", lease_s=30, max_attempts=2)
    session = SimpleNamespace(ledger=ledger, settings=SimpleNamespace(lease_s=30.0), neighbours=1)

    def write(*_):
        with named_leases.hold(database, "milvus-writer", "a", timeout_s=0.0):
            pass

    named_leases.acquire(database, "milvus-writer", "b", 60)
    for _ in range(4):
        make_due(database, run_id)
        do_claimed(session, ledger.claim(run_id, 1), LOADED, {Stage.EMBED: write})
        if other := ledger.claim(run_id, 2):
            with ledger.finish(other):
                pass

    assert job_row(database, run_id, 1).attempt == 0


def test_who_waits_for_a_run_outlasts_a_restart_of_postgres(stack, database_url, database):
    run_id = add_index_run(database)
    with database.begin() as connection:
        runs.set_run_state(connection, run_id, RunState.DONE)
    _take_away_for_half_a_second(stack, database_url)

    assert wait_for_end(database, run_id).state is RunState.DONE


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
        run = SimpleNamespace(collection="torn_while_searched")
        results = _search(session, run, vectors, 1, progress)

    assert [hits[0].key for hits in results] == keys


def test_a_search_in_a_collection_that_is_gone_makes_it_again(database, vector_store):
    run_id = add_index_run(database)
    with database.begin() as connection:
        run = runs.get_run(connection, run_id)
    session = SimpleNamespace(database=database, vectors=vector_store, worker_id="a")
    progress = SimpleNamespace(step=lambda: None)

    hits = _search(session, run, np.eye(4, dtype=np.float32), 1, progress)

    assert hits == [[]] * 4
    assert vector_store.dim(run.collection) == 4


def test_vectors_reach_a_collection_that_was_dropped_while_they_were_computed(
    database, vector_store
):
    run_id = add_index_run(database)
    with database.begin() as connection:
        run = runs.get_run(connection, run_id)
    vector_store.create(run.collection, dim=4)
    vector_store.upsert(run.collection, ["a" * 64], np.eye(1, 4, dtype=np.float32))
    vector_store.drop(run.collection)
    session = SimpleNamespace(database=database, vectors=vector_store, worker_id="a")

    _upsert(session, run, ["b" * 64], np.eye(1, 4, dtype=np.float32))
    vector_store.flush(run.collection)

    assert held(vector_store, run.collection) == ["b" * 64]


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
