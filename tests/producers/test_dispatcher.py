from dataclasses import replace
from threading import Event, Thread
from time import sleep

import pytest
import redis
from pymilvus import MilvusClient
from sqlalchemy import text

from nightshift.producers.dispatcher import Dispatcher
from nightshift.schema.errors import LeaseLostError, NightshiftError, ServiceUnavailableError
from nightshift.schema.states import RunState
from nightshift.stores.broker.broker import Broker
from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.ledger import runs, workers
from nightshift.stores.ledger.claims import Ledger
from nightshift.stores.postgres import named_leases
from tests.results.ranked import add_reference_run
from tests.stores.ledger_helpers import FINGERPRINT, add_index_run, expire, job_row, make_due

_COLLECTION = "c_v1"
_QUEUE = f"embed.{FINGERPRINT}"


@pytest.fixture
def broker(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def dispatcher(database, settings, redis_url):
    broker = Broker(redis_url)
    vectors = VectorStore(settings.milvus_uri, settings.milvus_token.get_secret_value())
    yield Dispatcher(database=database, vectors=vectors, broker=broker, settings=settings)
    broker.close()
    vectors.close()


def test_redis_never_holds_more_than_the_window(database, dispatcher, broker, settings):
    add_index_run(database, n_jobs=20, per_job=1)

    first, second = dispatcher.tick(), dispatcher.tick()

    assert (first, second) == (settings.window_per_worker, 0)
    assert broker.llen(_QUEUE) == settings.window_per_worker


def test_the_window_grows_with_the_workers_alive(database, dispatcher, broker, settings):
    add_index_run(database, n_jobs=20, per_job=1)
    with database.begin() as connection:
        for number in range(3):
            workers.register(
                connection, worker_id=f"w{number}", host="h", pid=1, device="cpu", stages="embed"
            )

    dispatcher.tick()

    assert broker.llen(_QUEUE) == 3 * settings.window_per_worker


def test_doorbells_lost_with_redis_ring_again(database, dispatcher, broker, settings):
    run_id = add_index_run(database, n_jobs=2, per_job=1)
    dispatcher.tick()
    broker.flushdb()
    with database.begin() as connection:
        connection.execute(
            text("UPDATE job SET sent_at = sent_at - interval '5 s' WHERE run_id = :r"),
            {"r": run_id},
        )

    assert dispatcher.tick() == 2
    assert broker.llen(_QUEUE) == 2


def test_a_paused_run_rings_no_doorbell(database, dispatcher, broker):
    run_id = add_index_run(database)
    with database.begin() as connection:
        runs.set_run_state(connection, run_id, RunState.PAUSED)

    assert dispatcher.tick() == 0
    assert broker.llen(_QUEUE) == 0


def test_the_more_urgent_run_rings_first(database, dispatcher, settings):
    later = add_index_run(database, n_jobs=9, per_job=1)
    urgent = add_index_run(database, n_jobs=8, per_job=1)
    with database.begin() as connection:
        connection.execute(text("UPDATE run SET priority = 0 WHERE id = :r"), {"r": urgent})

    dispatcher.tick()

    with database.begin() as connection:
        rung = connection.execute(text("SELECT run_id FROM job WHERE sent_at IS NOT NULL")).all()
    assert {row.run_id for row in rung} == {urgent}
    assert len(rung) == settings.window_per_worker
    assert job_row(database, later, 1).sent_at is None


def test_runs_of_equal_priority_share_the_window(database, dispatcher, settings):
    runs_of_two = [add_index_run(database, n_jobs=n, per_job=1) for n in (9, 8)]

    dispatcher.tick()

    with database.begin() as connection:
        rung = connection.execute(
            text("SELECT run_id FROM job WHERE sent_at IS NOT NULL ORDER BY run_id")
        ).scalars()
        assert list(rung) == sorted(runs_of_two * (settings.window_per_worker // 2))


def test_a_job_whose_worker_died_is_rung_again(database, dispatcher, broker):
    run_id = add_index_run(database, n_jobs=1, per_job=4)
    ledger = Ledger(database, worker_id="doomed", lease_s=30, max_attempts=3)
    ledger.claim(run_id, 1)
    expire(database, run_id, 1)

    dispatcher.tick()
    make_due(database, run_id)

    assert dispatcher.tick() == 1
    assert job_row(database, run_id, 1).error.startswith("lease_expired: worker doomed")


def test_only_the_elected_dispatcher_acts(database, dispatcher, broker):
    named_leases.acquire(database, "dispatcher", "another", 30)
    add_index_run(database)
    stop = Event()
    thread = Thread(target=dispatcher.run, args=(stop,))

    thread.start()
    sleep(1)
    before = broker.llen(_QUEUE)
    named_leases.release(database, "dispatcher", "another")
    for _ in range(100):
        if broker.llen(_QUEUE) == 3:
            break
        sleep(0.05)
    after = broker.llen(_QUEUE)
    stop.set()
    thread.join()

    assert (before, after) == (0, 3)
    assert named_leases.acquire(database, "dispatcher", "successor", 30), "released on the way out"


def test_a_leader_that_was_replaced_while_it_slept_changes_nothing(database, dispatcher, broker):
    run_id = add_index_run(database, n_jobs=2)
    ledger = Ledger(database, worker_id="doomed", lease_s=30, max_attempts=3)
    ledger.claim(run_id, 1)
    expire(database, run_id, 1)
    token = named_leases.acquire(database, "dispatcher", "sleeper", 30)
    named_leases.release(database, "dispatcher", "sleeper")
    named_leases.acquire(database, "dispatcher", "successor", 30)

    with pytest.raises(LeaseLostError, match="dispatcher"):
        dispatcher.tick(token)

    assert job_row(database, run_id, 1).state == "running"
    assert job_row(database, run_id, 2).sent_at is None
    assert broker.llen(_QUEUE) == 0


def test_rows_that_a_frozen_process_has_locked_keep_nobody_waiting(database, dispatcher, broker):
    locked = add_index_run(database, n_jobs=1, per_job=1)
    expired = add_index_run(database, n_jobs=1, per_job=2)
    other = add_index_run(database, n_jobs=1, per_job=3)
    ledger = Ledger(database, worker_id="frozen", lease_s=30, max_attempts=3)
    ledger.claim(expired, 1)
    expire(database, expired, 1)

    with database.begin() as frozen:
        frozen.execute(text("SELECT FROM run WHERE id = :r FOR NO KEY UPDATE"), {"r": locked})
        frozen.execute(text("SELECT FROM job WHERE run_id = :r FOR UPDATE"), {"r": expired})
        rung = dispatcher.tick()

    assert rung == 2
    assert job_row(database, other, 1).sent_at is not None
    assert job_row(database, expired, 1).state == "running"


def test_an_index_run_is_done_when_its_last_job_is(database, dispatcher):
    run_id = add_index_run(database, n_jobs=1, per_job=2)
    dispatcher.vectors.create(_collection(database, run_id), dim=4)
    ledger = Ledger(database, worker_id="w", lease_s=30, max_attempts=3)
    with ledger.finish(ledger.claim(run_id, 1)):
        pass

    dispatcher.tick()

    with database.begin() as connection:
        run = runs.get_run(connection, run_id)
        index_state = connection.execute(text('SELECT state FROM "index"')).scalar_one()
    assert (run.state, index_state) == (RunState.DONE, "ready")


def _collection(database, run_id: int) -> str:
    with database.begin() as connection:
        return runs.get_run(connection, run_id).collection


@pytest.mark.parametrize("made_by_us", [True, False])
def test_another_collection_of_the_same_name_is_left_alone_and_the_run_says_so(
    database, dispatcher, vector_store, made_by_us
):
    run_id = _before_its_search(database)
    if made_by_us:
        vector_store.create(_COLLECTION, dim=7)
    else:
        vector_store._run(MilvusClient.create_collection, _COLLECTION, dimension=4)

    dispatcher.tick()

    with database.begin() as connection:
        assert runs.get_run(connection, run_id).state is RunState.FAILED
        message = connection.execute(
            text("SELECT message FROM failure WHERE reason = 'collection_conflict'")
        ).scalar_one()
    assert _COLLECTION in message
    assert f"nightshift run retry-failed {run_id}" in message
    assert vector_store.has(_COLLECTION)
    assert ("doctor --repair" in message) is made_by_us


def test_a_run_that_cannot_be_advanced_fails_with_the_reason_instead_of_hanging(
    database, dispatcher, monkeypatch
):
    run_id = _before_its_search(database)

    def refuses(*_):
        raise NightshiftError("Milvus refuses: a manifest is damaged")

    monkeypatch.setattr("nightshift.producers.advance.find_lost_vectors", refuses)
    dispatcher.tick()
    with database.begin() as connection:
        assert runs.get_run(connection, run_id).state is RunState.RUNNING, "it may pass"

    replace(dispatcher, stuck_s=0.0).tick()

    with database.begin() as connection:
        assert runs.get_run(connection, run_id).state is RunState.FAILED
        failure = connection.execute(text("SELECT reason, message FROM failure")).one()
    assert failure.reason == "cannot_advance"
    assert "a manifest is damaged" in failure.message


def test_an_outage_fails_no_run_however_long_it_lasts(database, dispatcher, monkeypatch):
    run_id = _before_its_search(database)

    def away(*_):
        raise ServiceUnavailableError("Milvus is away", "milvus")

    monkeypatch.setattr("nightshift.producers.advance.find_lost_vectors", away)
    impatient = replace(dispatcher, stuck_s=0.0)
    for _ in range(3):
        impatient.tick()

    with database.begin() as connection:
        assert runs.get_run(connection, run_id).state is RunState.RUNNING


def _before_its_search(database):
    run_id = add_reference_run(database)
    with database.begin() as connection:
        connection.execute(text("UPDATE run SET stage = 'embed'"))
    return run_id
