from contextlib import suppress

import numpy as np
import pytest
import redis
from sqlalchemy import text

from nightshift.results.doctor import examine
from nightshift.schema.states import RunState, SubjectKind
from nightshift.stores.failures import record_failure
from nightshift.stores.index import indexes
from nightshift.stores.index.comparison import compare
from nightshift.stores.index.embeddings import write_embeddings
from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.ledger import runs, workers
from nightshift.stores.postgres import named_leases
from nightshift.stores.postgres.database import Database
from tests.catalog_rows import ITEMS
from tests.stores.index.damage import double_rows, tear_index
from tests.stores.ledger_helpers import add_index_run, expire


@pytest.fixture
def findings(database, vector_store, redis_url, tmp_path):
    def look(*, deep=False):
        results = examine(database, vector_store, redis_url, tmp_path, deep=deep)
        return {(result.check, result.level): result.message for result in results}

    return look


def test_a_healthy_system_has_no_error(database, findings):
    named_leases.acquire(database, "dispatcher", "d", 30)
    with database.begin() as connection:
        workers.register(connection, worker_id="w", host="h", pid=1, device="cpu", stages="embed")

    results = findings()

    assert {level for _, level in results} <= {"ok", "warning"}
    assert "nightshift " in results["versions", "ok"]
    assert results["milvus", "ok"].startswith("milvus_lite-")


def test_live_items_without_a_vector_are_counted(database, findings, vector_store):
    run_id = add_index_run(database, n_jobs=1, per_job=2)
    with database.begin() as connection:
        index_id, collection = connection.execute(text('SELECT id, collection FROM "index"')).one()
        indexes.make_ready(connection, index_id)
        connection.execute(
            text(
                "INSERT INTO embedding (index_id, item_id, key, content, run_id) "
                "SELECT :i, id, lpad(to_hex(id), 64, '0'), text_hash, :r "
                f"FROM {ITEMS} AS item"
            ),
            {"i": index_id, "r": run_id},
        )
    vector_store.create(collection, dim=4)

    assert "lacks 2 live vectors" in findings()["milvus", "error"]


def test_what_was_verified_is_read_where_the_check_is_deep(database, findings, vector_store):
    """Milvus forgets to count the writes that swap a vector for one that nobody owns."""
    run_id = add_index_run(database, n_jobs=1, per_job=2)
    with database.begin() as connection:
        items = connection.execute(text("SELECT id FROM item ORDER BY id")).scalars().all()
        index = indexes.get_index(connection, runs.get_run(connection, run_id).index_id)
        indexes.make_ready(connection, index.id)
        keys = [f"{item:064x}" for item in items]
        write_embeddings(
            connection, index_id=index.id, run_id=run_id, keys=list(zip(items, keys, strict=True))
        )
        connection.execute(text("UPDATE job SET state = 'done', finished_at = now()"))
    vector_store.create(index.collection, dim=4)
    vector_store.upsert(index.collection, keys, np.eye(2, 4, dtype=np.float32))
    compare(database, vector_store, index)
    vector_store.delete(index.collection, keys[:1])
    vector_store.upsert(index.collection, ["0" * 64], np.eye(1, 4, dtype=np.float32))
    n_writes = vector_store.state(index.collection).writes
    with database.begin() as connection:
        connection.execute(text("UPDATE index_range SET writes = :n"), {"n": n_writes})

    assert ("milvus", "error") not in findings()
    assert "lacks 1 live vectors" in findings(deep=True)["milvus", "error"]


def test_items_with_neither_a_vector_nor_a_reason_are_counted(database, findings, vector_store):
    run_id = add_index_run(database, n_jobs=1, per_job=3)
    with database.begin() as connection:
        index_id, collection = connection.execute(text('SELECT id, collection FROM "index"')).one()
        indexes.make_ready(connection, index_id)
        record_failure(connection, run_id=run_id, stage="embed", subject_kind=SubjectKind.ITEM,
                       subject_id="item-1", reason="image_missing", message="gone")  # fmt: skip
    vector_store.create(collection, dim=4)

    assert "has no vector of 2 live items" in findings()["milvus", "warning"]


def test_vectors_that_are_there_twice_are_counted(stack, database, findings, vector_store):
    add_index_run(database, n_jobs=1, per_job=2)
    with database.begin() as connection:
        index_id, collection = connection.execute(text('SELECT id, collection FROM "index"')).one()
        indexes.make_ready(connection, index_id)
    vector_store.create(collection, dim=4)
    double_rows(
        stack, vector_store, collection, ["a" * 64, "b" * 64], np.ones((2, 4), dtype=np.float32)
    )

    assert "holds 2 vectors twice" in findings()["milvus", "warning"]


def test_an_index_that_cannot_be_loaded_is_an_error_and_the_remedy_is_said(
    stack, database, vector_store, redis_url, tmp_path
):
    add_index_run(database, n_jobs=1, per_job=2)
    with database.begin() as connection:
        index_id, collection = connection.execute(text('SELECT id, collection FROM "index"')).one()
        indexes.make_ready(connection, index_id)
    vector_store.create(collection, dim=4)
    vector_store.upsert(collection, ["a" * 64], np.ones((1, 4), dtype=np.float32))
    vector_store.flush(collection)
    tear_index(stack, vector_store, collection)

    with VectorStore(stack.urls().milvus_uri, stack.urls().milvus_token) as fresh:
        results = list(examine(database, fresh, redis_url, tmp_path))

    (error,) = [
        result.message for result in results if (result.check, result.level) == ("milvus", "error")
    ]
    assert "nightshift doctor --repair" in error


def test_a_run_under_way_without_a_worker_is_an_error(database, findings):
    add_index_run(database)

    assert "worker" in findings()["ledger", "error"]


def test_jobs_that_nobody_takes_back_are_an_error(database, findings):
    run_id = add_index_run(database)
    named_leases.acquire(database, "dispatcher", "d", 30)
    with database.begin() as connection:
        workers.register(connection, worker_id="w", host="h", pid=1, device="cpu", stages="embed")
        connection.execute(
            text(
                "UPDATE job SET state = 'running', lease_until = now(), worker_id = 'w', "
                "started_at = now() WHERE id = 1"
            )
        )
    expire(database, run_id, 1)
    with database.begin() as connection:
        connection.execute(
            text(
                "UPDATE job SET lease_until = lease_until - interval '5 minutes' "
                "WHERE state = 'running'"
            )
        )

    assert "1 jobs have lost their worker" in findings()["ledger", "error"]


def test_a_collection_that_is_gone_is_an_error_and_the_other_indexes_are_looked_at(
    database, vector_store, redis_url, tmp_path
):
    gone, kept = _ready_index(database, 1), _ready_index(database, 2)
    vector_store.create(kept, dim=4)

    results = examine(database, vector_store, redis_url, tmp_path)
    said = [result for result in results if result.check == "milvus"]

    (error,) = [result.message for result in said if result.level == "error"]
    assert f"{gone} is gone" in error
    assert "doctor --repair" in error
    assert any(f"{kept} has lost its alias" in result.message for result in said)
    assert "2 ready indexes" in said[0].message


def test_a_collection_of_another_width_is_an_error(database, findings, vector_store):
    collection = _ready_index(database, 1)
    vector_store.create(collection, dim=9)

    assert "vectors of 9 numbers, not 4" in findings()["milvus", "error"]


def test_without_postgres_everything_else_is_looked_at(vector_store, redis_url, tmp_path):
    with Database("postgresql+psycopg2://nobody@127.0.0.1:1/none") as away:
        results = {
            (finding.check, finding.level)
            for finding in examine(away, vector_store, redis_url, tmp_path)
        }

    assert {("postgres", "error"), ("redis", "ok"), ("milvus", "ok"), ("disk", "ok")} <= {
        (check, "ok" if check == "disk" else level) for check, level in results
    }
    assert {("indexes", "warning"), ("ledger", "warning"), ("runs", "warning")} <= results


def test_without_redis_and_milvus_everything_else_is_looked_at(database, tmp_path):
    with VectorStore("http://127.0.0.1:1", patience_s=0.1) as away:
        results = list(examine(database, away, "redis://127.0.0.1:1/0", tmp_path))

    levels = {(result.check, result.level) for result in results}
    assert {("redis", "error"), ("milvus", "error"), ("postgres", "ok"), ("runs", "ok")} <= levels


def test_a_database_of_another_revision_is_an_error_and_the_rest_is_looked_at(
    empty_database_url, vector_store, redis_url, tmp_path
):
    with Database(empty_database_url) as empty:
        results = list(examine(empty, vector_store, redis_url, tmp_path))

    levels = {(result.check, result.level) for result in results}
    assert {("postgres", "error"), ("ledger", "error"), ("redis", "ok")} <= levels
    assert any("nightshift db upgrade" in result.message for result in results)


def test_a_redis_that_refuses_writes_is_an_error(findings, redis_url):
    with redis.Redis.from_url(redis_url) as broker:
        broker.execute_command("REPLICAOF", "127.0.0.1", "1")
        try:
            results = findings()
        finally:
            broker.execute_command("REPLICAOF", "NO", "ONE")

    assert "refuses writes" in results["redis", "error"]
    assert "read only replica" in results["redis", "error"]
    assert ("redis", "error") not in findings()


def test_a_redis_whose_queues_are_something_else_is_an_error(findings, redis_url):
    with redis.Redis.from_url(redis_url) as broker:
        broker.set("score.0123abcd", "x")
        broker.lpush("unacked_index", "x")
        broker.set(b"\xff\xfe", "of somebody else")
        results = findings()
        broker.flushdb()
        broker.lpush("score.0123abcd", "a doorbell")

    assert "score.0123abcd, unacked_index" in results["redis", "error"]
    assert ("redis", "ok") not in results
    assert ("redis", "ok") in findings()


def test_a_postgres_that_takes_no_writes_is_an_error(database, vector_store, redis_url, tmp_path):
    url = database.engine.url.update_query_dict({"options": "-c default_transaction_read_only=on"})
    with Database(url.render_as_string(hide_password=False)) as read_only:
        results = list(examine(read_only, vector_store, redis_url, tmp_path))

    (message,) = [
        result.message
        for result in results
        if (result.check, result.level) == ("postgres", "error")
    ]
    assert "takes no writes" in message


def test_a_redis_that_does_not_show_its_settings_is_no_error(findings, redis_url):
    with redis.Redis.from_url(redis_url) as broker:
        broker.execute_command("ACL", "SETUSER", "default", "-config")
        try:
            results = findings()
        finally:
            broker.execute_command("ACL", "SETUSER", "default", "+@all")

    assert ("redis", "ok") in results
    assert ("redis", "error") not in results


def test_a_full_disk_is_an_error(database, vector_store, redis_url, small_disk):
    with suppress(OSError), (small_disk / "full").open("wb") as file:
        file.write(bytes(2**22))

    results = examine(database, vector_store, redis_url, small_disk)

    assert [result for result in results if result.check == "disk" and result.level == "error"]


def _ready_index(database, n_jobs: int) -> str:
    run_id = add_index_run(database, n_jobs=n_jobs, per_job=2)
    with database.begin() as connection:
        run = runs.get_run(connection, run_id)
        runs.set_run_state(connection, run_id, RunState.CANCELLED)
        indexes.make_ready(connection, run.index_id)
    return run.collection
