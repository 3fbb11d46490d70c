"""Pruning removes retired index versions with their vectors, whatever moment it is killed at."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from sqlalchemy import text

from nightshift.cli.main import main
from nightshift.schema.errors import ServiceUnavailableError
from nightshift.schema.identity import embedding_key
from nightshift.schema.params import IndexParams
from nightshift.schema.plans import IndexPlan
from nightshift.schema.states import RunState
from nightshift.stores.index import index_pruning
from nightshift.stores.index.index_pruning import prune_indexes
from nightshift.stores.ledger import runs
from nightshift.stores.ledger.new_runs import create_index_run
from nightshift.stores.ledger.run_pruning import prune_runs
from tests.results.ranked import add_reference_run

_VECTORS = np.eye(4, dtype=np.float32)
_KEYS = [embedding_key(name, b"", "f") for name in "abcd"]


@pytest.fixture
def versions(database, vector_store):
    """Version 1, searched by a done run, 2 and 3, both retired, and 4; each with four vectors."""
    run_id = add_reference_run(database)
    with database.begin() as connection:
        run = runs.get_run(connection, run_id)
        runs.set_run_state(connection, run_id, RunState.DONE)
        connection.execute(text("UPDATE \"index\" SET state = 'retired'"))
        connection.execute(
            text("""
            INSERT INTO "index" (catalog_id, name, version, embedder, embedder_fingerprint, parts,
                dim, collection, state)
            SELECT catalog_id, name, n, embedder, embedder_fingerprint, parts, dim, 'c_v' || n,
                CASE n WHEN 4 THEN 'ready' ELSE 'retired' END
            FROM "index", generate_series(2, 4) AS n ORDER BY n
            """)
        )
        indexes = connection.execute(text('SELECT id, collection FROM "index" ORDER BY id')).all()
        for index in indexes:
            build = create_index_run(
                connection, catalog_id=run.catalog_id, index_id=index.id, revision=1,
                params=IndexParams(), plan=IndexPlan(),
            )  # fmt: skip
            runs.set_run_state(connection, build, RunState.DONE)
    for index in indexes:
        vector_store.create(index.collection, dim=4)
        vector_store.upsert(index.collection, _KEYS, _VECTORS)
        vector_store.flush(index.collection)
        embed(database, index.id)
    vector_store.set_alias("c", "c_v4")
    return {number: index.id for number, index in enumerate(indexes, 1)}


def embed(database, index_id):
    with database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO embedding (index_id, item_id, key, content, run_id) "
                "SELECT :index, id, md5(id::text) || md5(id::text), 'x', 1 "
                "FROM item ORDER BY id LIMIT 4"
            ),
            {"index": index_id},
        )


def left(database):
    with database.begin() as connection:
        numbers = connection.execute(text('SELECT version FROM "index" ORDER BY id'))
        return list(numbers.scalars())


def embeddings(database):
    with database.begin() as connection:
        rows = connection.execute(
            text("SELECT version FROM embedding e JOIN index i ON i.id = index_id ORDER BY 1")
        )
        return list(rows.scalars())


def numbers_of(report):
    return [index.version for index in report.indexes]


def test_retired_versions_go_with_vectors_builds_and_embeddings(database, vector_store, versions):
    report = prune_indexes(database, vector_store)

    assert numbers_of(report) == [2, 3]
    assert [(index.vectors, index.bytes, index.runs) for index in report.indexes] == [
        (4, 4 * (4 * 4 + 64), 1)
    ] * 2
    assert left(database) == [1, 4]
    assert embeddings(database) == [1] * 4 + [4] * 4
    assert vector_store.collections() == ["c_v1", "c_v4"]
    assert vector_store.aliases("c_v4") == ["c"]
    with database.begin() as connection:
        kept = connection.execute(text("SELECT DISTINCT index_id FROM run ORDER BY 1")).scalars()
        assert list(kept) == [versions[1], versions[4]]


def test_a_version_that_a_ranking_searched_goes_after_that_run(database, vector_store, versions):
    report = prune_indexes(database, vector_store)
    assert len(report.skipped) == 1
    assert "version 1 of catalogue 'things': run 1 needs it" in report.skipped[0]

    prune_runs(database, keep=0)

    assert numbers_of(prune_indexes(database, vector_store)) == [1]
    assert vector_store.collections() == ["c_v4"]


def test_a_version_that_is_being_built_on_again_stays(database, vector_store, versions):
    with database.begin() as connection:
        connection.execute(
            text(
                "UPDATE run SET state = 'paused', finished_at = NULL "
                "WHERE index_id = :index AND kind = 'index'"
            ),
            {"index": versions[2]},
        )

    assert numbers_of(prune_indexes(database, vector_store)) == [3]


def test_a_dry_run_removes_nothing_and_the_newest_retired_ones_are_kept(
    database, vector_store, versions
):
    assert numbers_of(prune_indexes(database, vector_store, dry_run=True)) == [2, 3]
    assert numbers_of(prune_indexes(database, vector_store, keep=1, dry_run=True)) == [2]
    assert left(database) == [1, 2, 3, 4]
    assert len(vector_store.collections()) == 4


@pytest.mark.parametrize("step", ["_remove_builds", "hold_writer", "drop"])
def test_a_pruning_that_stops_after_any_step_is_finished_by_the_next(
    database, vector_store, versions, monkeypatch, step
):
    def stop(*_: object, **__: object) -> None:
        raise ServiceUnavailableError("killed here")

    with monkeypatch.context() as patch:
        if step == "drop":
            dropped = vector_store.drop

            def drop(collection: str) -> None:
                dropped(collection)
                stop()

            patch.setattr(vector_store, "drop", drop)
        else:
            patch.setattr(index_pruning, step, stop)
        with pytest.raises(ServiceUnavailableError):
            prune_indexes(database, vector_store)
    assert left(database) == [1, 2, 3, 4]

    prune_indexes(database, vector_store)

    assert left(database) == [1, 4]
    assert vector_store.collections() == ["c_v1", "c_v4"]


def test_the_command_names_versions_and_bytes(settings, database, versions):
    cli = CliRunner(
        env={
            "NIGHTSHIFT_DATABASE_URL": settings.database_url.get_secret_value(),
            "NIGHTSHIFT_DATA_DIR": str(settings.data_dir),
        }
    )

    shown = cli.invoke(main, ["index", "prune", "--dry-run"])
    done = cli.invoke(main, ["index", "prune", "--json"])

    assert "2 index versions, 640 B, would be deleted" in shown.stdout
    assert "stays: index 'default' version 1" in shown.stderr
    assert [index["version"] for index in json.loads(done.stdout)["indexes"]] == [2, 3]
    assert left(database) == [1, 4]
