"""`nightshift doctor`, run as a user runs it."""

import json

from click.testing import CliRunner
from sqlalchemy import text

from nightshift.cli.main import main
from nightshift.schema.states import RunState
from nightshift.stores import indexes, runs
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

    found = {one["check"]: one for one in json.loads(waited_for.stdout)}
    assert waited_for.exit_code == 1
    assert found["model"]["level"] == "error"
    assert f"open_clip:test (run {run_id}, index {collection})" in found["model"]["message"]
    assert "gpu" in found
    assert only_indexed.exit_code == 0, "an index that cannot be searched holds nobody up"
    assert "! model     open_clip:test (index" in only_indexed.stdout
