"""`nightshift doctor`, run as a user runs it."""

import json

from click.testing import CliRunner
from pymilvus import MilvusClient
from sqlalchemy import text

from nightshift.cli.main import main
from nightshift.schema.states import RunState
from nightshift.stack import StackState
from nightshift.stores.index import indexes
from nightshift.stores.ledger import runs
from tests.stores.ledger_helpers import add_index_run


def _doctor(settings, *words: str):
    environment = {
        "NIGHTSHIFT_DATABASE_URL": settings.database_url.get_secret_value(),
        "NIGHTSHIFT_REDIS_URL": settings.redis_url.get_secret_value(),
        "NIGHTSHIFT_MILVUS_URI": settings.milvus_uri,
        "NIGHTSHIFT_MILVUS_TOKEN": settings.milvus_token.get_secret_value(),
        "NIGHTSHIFT_DATA_DIR": str(settings.data_dir),
    }
    return CliRunner(env=environment).invoke(main, ["doctor", *words])


def test_doctor_looks_at_gpus_and_at_the_models_that_are_needed(settings, database, vector_store):
    run_id = add_index_run(database, n_jobs=1, per_job=1)
    with database.begin() as connection:
        index_id = connection.execute(text('SELECT id FROM "index"')).scalar_one()
        indexes.make_ready(connection, index_id)
        collection = runs.get_run(connection, run_id).collection
    vector_store.create(collection, dim=4)
    waited_for = _doctor(settings, "--json")
    with database.begin() as connection:
        runs.set_run_state(connection, run_id, RunState.CANCELLED)
    only_indexed = _doctor(settings)

    checks = {load["check"]: load for load in json.loads(waited_for.stdout)}
    assert waited_for.exit_code == 1
    assert checks["model"]["level"] == "error"
    assert f"open_clip:test (run {run_id}, index {collection})" in checks["model"]["message"]
    assert "gpu" in checks
    assert only_indexed.exit_code == 0, "an index that cannot be searched holds nobody up"
    assert "! model     open_clip:test (index" in only_indexed.stdout


def test_doctor_looks_at_all_that_it_can_while_the_whole_stack_is_down(tmp_path):
    state = StackState()
    for service in ("postgres", "redis", "milvus"):
        state.choose_port(service)
    state.save(tmp_path)

    done = CliRunner(env={"NIGHTSHIFT_DATA_DIR": str(tmp_path)}).invoke(main, ["doctor", "--json"])

    levels = {(load["check"], load["level"]) for load in json.loads(done.stdout)}
    assert done.exit_code == 1
    assert {(service, "error") for service in ("postgres", "redis", "milvus")} <= levels
    assert {("versions", "ok"), ("gpu", "ok"), ("model", "warning")} <= levels
    assert "disk" in {check for check, _ in levels}


def test_doctor_looks_at_everything_although_a_repair_was_refused(settings, database, vector_store):
    run_id = add_index_run(database, n_jobs=1, per_job=1)
    with database.begin() as connection:
        run = runs.get_run(connection, run_id)
        indexes.make_ready(connection, run.index_id)
    vector_store._run(MilvusClient.create_collection, run.collection, dimension=4)

    done = _doctor(settings, "--repair", "--json")

    printed = json.loads(done.stdout)
    (refused,) = [result["message"] for result in printed if result["check"] == "repair"]
    assert "was not made by this program" in refused
    assert {"redis", "disk", "runs"} <= {result["check"] for result in printed}
