"""`doctor --repair` leaves each live item with one vector, no vector without an item."""

import numpy as np
import pytest
from pymilvus import MilvusClient
from sqlalchemy import text

from nightshift.producers.repair import repair
from nightshift.schema.errors import ConflictError
from nightshift.schema.identity import content_hashes, embedding_key
from nightshift.schema.records import TextPart
from nightshift.schema.states import RunState, Stage
from nightshift.stores.index import indexes
from nightshift.stores.index.embeddings import write_embeddings
from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.ledger import runs
from tests.results.ranked import add_reference_run
from tests.stores.index.damage import double_rows, held, tear_index
from tests.stores.ledger_helpers import FINGERPRINT, add_index_run

_ORPHAN = "f" * 64


def _alias(collection):
    return collection.rpartition("_v")[0]


@pytest.fixture
def index(database, vector_store):
    """An index of four items, embedded and ready, with its collection."""
    run_id = add_index_run(database, n_jobs=1, per_job=4)
    with database.begin() as connection:
        run = runs.get_run(connection, run_id)
        items = connection.execute(text("SELECT id, external_id FROM item ORDER BY id")).all()
        keys = [
            embedding_key(
                row.external_id,
                content_hashes((TextPart(text=f"thing {number}"),)).text,
                FINGERPRINT,
            )
            for number, row in enumerate(items)
        ]
        write_embeddings(
            connection,
            index_id=run.index_id,
            run_id=run_id,
            keys=[(row.id, key) for row, key in zip(items, keys, strict=True)],
        )
        connection.execute(text("UPDATE job SET state = 'done', finished_at = now()"))
        indexes.make_ready(connection, run.index_id)
        runs.set_run_state(connection, run_id, RunState.DONE)
    vector_store.create(run.collection, dim=4)
    vector_store.set_alias(_alias(run.collection), run.collection)
    vector_store.upsert(run.collection, [*keys, _ORPHAN], np.eye(5, 4, dtype=np.float32) + 1)
    vector_store.flush(run.collection)
    return run.collection, keys, [row.id for row in items]


def test_orphans_are_deleted_and_lost_vectors_embedded_again(database, vector_store, index):
    collection, keys, items = index
    vector_store.delete(collection, keys[:1])
    vector_store.flush(collection)

    done = list(repair(database, vector_store))

    assert held(vector_store, collection) == sorted(keys[1:])
    assert len(done) == 2
    with database.begin() as connection:
        (repeated,) = connection.execute(
            text("SELECT payload FROM job WHERE state = 'queued'")
        ).scalars()
        live = connection.execute(text("SELECT count(*) FROM embedding")).scalar_one()
    assert repeated == {"ids": [items[0]]}
    assert live == 3


def test_what_agrees_is_left_as_it_is(database, vector_store, index):
    collection, keys, _ = index
    list(repair(database, vector_store))

    assert list(repair(database, vector_store)) == []
    assert held(vector_store, collection) == sorted(keys)


def test_a_torn_index_is_built_again_and_nothing_is_lost(stack, database, vector_store, index):
    collection, keys, items = index
    list(repair(database, vector_store))
    tear_index(stack, vector_store, collection)

    with VectorStore(stack.urls().milvus_uri, stack.urls().milvus_token) as fresh:
        (done,) = repair(database, fresh)
        assert held(fresh, collection) == sorted(keys)
        hits = fresh.search(collection, np.ones((1, 4), dtype=np.float32), len(items))

    assert "damaged and is built again" in done
    assert {hit.key for hit in hits[0]} == set(keys)


@pytest.mark.parametrize("width", [None, 7])
def test_a_collection_that_is_gone_or_of_another_width_is_made_again(
    database, vector_store, index, width
):
    collection, _, items = index
    vector_store.drop(collection)
    if width:
        vector_store.create(collection, dim=width)

    made, embeds = repair(database, vector_store)

    assert "made again" in made
    assert f"embeds {len(items)} items" in embeds
    assert vector_store.dim(collection) == 4
    assert vector_store.aliases(collection) == [_alias(collection)]


def test_an_alias_that_is_lost_leads_to_its_collection_again(database, vector_store, index):
    collection, _, _ = index
    list(repair(database, vector_store))
    vector_store._run(MilvusClient.drop_alias, _alias(collection))

    (done,) = repair(database, vector_store)

    assert "alias" in done
    assert vector_store.aliases(collection) == [_alias(collection)]


def test_an_index_that_cannot_be_mended_keeps_no_other_from_it(database, vector_store, index):
    collection, _, _ = index
    vector_store.drop(collection)
    vector_store._run(MilvusClient.create_collection, collection, dimension=4)
    other = add_index_run(database, n_jobs=1, per_job=2)
    with database.begin() as connection:
        run = runs.get_run(connection, other)
        runs.set_run_state(connection, other, RunState.CANCELLED)
        indexes.make_ready(connection, run.index_id)

    with pytest.raises(ConflictError, match=collection):
        list(repair(database, vector_store))

    assert vector_store.has(run.collection)


def test_vectors_that_are_there_twice_are_merged(stack, database, vector_store, index):
    collection, keys, _ = index
    list(repair(database, vector_store))
    double_rows(stack, vector_store, collection, keys, np.ones((4, 4), dtype=np.float32))

    (done,) = repair(database, vector_store)

    assert "4 vectors were there twice" in done
    assert held(vector_store, collection) == sorted(keys)


def test_a_vector_whose_item_is_being_embedded_is_nobodys_orphan(database, vector_store, index):
    collection, keys, _ = index
    with database.begin() as connection:
        connection.execute(text("UPDATE run SET state = 'running', finished_at = NULL"))

    assert list(repair(database, vector_store)) == []
    assert held(vector_store, collection) == sorted([*keys, _ORPHAN])


def test_a_run_without_all_its_rankings_is_taken_up_again(database, vector_store):
    run_id = add_reference_run(database)
    with database.begin() as connection:
        runs.set_run_state(connection, run_id, RunState.DONE)

    (done,) = repair(database, vector_store)

    with database.begin() as connection:
        run = runs.get_run(connection, run_id)
    assert (run.state, run.stage) == (RunState.RUNNING, Stage.SEARCH)
    assert f"run {run_id} goes on" in done
