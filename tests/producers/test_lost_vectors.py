"""Before a search stage and after it Milvus is compared with the ledger, and what it lost is made
again: whatever became of Milvus meanwhile, every live vector was searched."""

import shutil

import numpy as np
import pytest
from sqlalchemy import text

from nightshift.producers.advance import advance
from nightshift.schema.plans import RerankPlan
from nightshift.schema.states import RunState, Stage
from nightshift.stores.index import indexes
from nightshift.stores.index.embeddings import write_embeddings
from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.ledger import runs
from nightshift.stores.ledger.new_runs import create_rerank_run
from nightshift.stores.results.writes import CandidateRow, write_candidates
from tests.results.ranked import add_reference_run
from tests.stores.index.damage import double_rows, held, tear_index

_COLLECTION = "c_v1"


@pytest.fixture
def run_id(database, vector_store):
    """A re-ranking run that is about to search an index of eight embedded items."""
    run_id = add_reference_run(database)
    with database.begin() as connection:
        connection.execute(text("UPDATE run SET stage = 'embed'"))
    vector_store.create(_COLLECTION, dim=4)
    _embed(database, vector_store, run_id, _items(database))
    return run_id


def _items(database):
    with database.begin() as connection:
        return list(connection.execute(text("SELECT id FROM item ORDER BY id")).scalars())


def _key(item):
    return f"{item:064x}"


def _vectors(items):
    return np.random.default_rng(0).normal(size=(len(items), 4)).astype(np.float32)


def _embed(database, vectors, run_id, items):
    vectors.upsert(_COLLECTION, [_key(item) for item in items], _vectors(items))
    vectors.flush(_COLLECTION)
    with database.begin() as connection:
        index_id = runs.get_run(connection, run_id).index_id
        keys = [(item, _key(item)) for item in items]
        write_embeddings(connection, index_id=index_id, run_id=run_id, keys=keys)


def _lose(vectors, items):
    vectors.delete(_COLLECTION, [_key(item) for item in items])
    vectors.flush(_COLLECTION)


def _advance(database, vectors, run_id):
    return advance(database, vectors, run_id, lambda _: None)


def _queued(database, run_id, stage):
    with database.begin() as connection:
        payloads = connection.execute(
            text(
                "SELECT payload FROM job WHERE run_id = :r AND stage = :s AND state = 'queued' "
                "ORDER BY id"
            ),
            {"r": run_id, "s": stage.value},
        ).scalars()
        return [item_id for payload in payloads for item_id in payload["ids"]]


def _do_queued(database, run_id):
    with database.begin() as connection:
        connection.execute(
            text(
                "UPDATE job SET state = 'done', finished_at = now() "
                "WHERE run_id = :r AND state = 'queued'"
            ),
            {"r": run_id},
        )


def _search(database, run_id):
    """As the jobs of the stage do: a candidate for each query."""
    items = _items(database)
    rows = [
        CandidateRow(
            query_id=query, item_id=items[0], content_id=1, coarse_rank=1, coarse_score=0.5
        )
        for query in _queued(database, run_id, Stage.SEARCH)
    ]
    with database.begin() as connection:
        write_candidates(connection, runs.get_run(connection, run_id), rows)
    _do_queued(database, run_id)


def _n_candidates(database):
    with database.begin() as connection:
        return connection.execute(text("SELECT count(*) FROM candidate")).scalar_one()


def test_a_search_begins_where_nothing_was_lost(database, vector_store, run_id):
    assert _advance(database, vector_store, run_id) is Stage.SEARCH

    assert len(_queued(database, run_id, Stage.SEARCH)) == 5


def test_what_milvus_lost_is_embedded_before_the_search(database, vector_store, run_id):
    lost = _items(database)[:3]
    _lose(vector_store, lost)

    assert _advance(database, vector_store, run_id) is Stage.EMBED
    assert _queued(database, run_id, Stage.EMBED) == lost

    _embed(database, vector_store, run_id, lost)
    _do_queued(database, run_id)
    assert _advance(database, vector_store, run_id) is Stage.SEARCH


def test_a_torn_index_is_built_again_before_the_search(stack, database, vector_store, run_id):
    tear_index(stack, vector_store, _COLLECTION)

    with VectorStore(stack.urls().milvus_uri, stack.urls().milvus_token) as fresh:
        assert _advance(database, fresh, run_id) is Stage.SEARCH
        items = _items(database)
        results = fresh.search(_COLLECTION, _vectors(items), 1)

    assert [hits[0].key for hits in results] == [_key(item) for item in items]


def test_a_collection_that_is_gone_is_made_again_and_all_of_it_is_embedded(
    database, vector_store, run_id
):
    with database.begin() as connection:
        connection.execute(text("UPDATE \"index\" SET state = 'ready'"))
        index = indexes.get_index(connection, runs.get_run(connection, run_id).index_id)
    vector_store.drop(_COLLECTION)

    assert _advance(database, vector_store, run_id) is Stage.EMBED
    assert _queued(database, run_id, Stage.EMBED) == _items(database)
    assert vector_store.dim(_COLLECTION) == index.dim
    assert vector_store.aliases(_COLLECTION) == [index.alias]

    _embed(database, vector_store, run_id, _items(database))
    _do_queued(database, run_id)
    assert _advance(database, vector_store, run_id) is Stage.SEARCH


def test_a_milvus_that_began_on_an_empty_directory_during_the_search_is_filled_again(
    stack, database, vector_store, run_id
):
    _advance(database, vector_store, run_id)
    stack.kill("milvus")
    shutil.rmtree(stack.data_dir / "milvus")
    stack.up(0, dispatcher=False)
    _search(database, run_id)

    assert _advance(database, vector_store, run_id) is Stage.EMBED
    assert _queued(database, run_id, Stage.EMBED) == _items(database)
    assert _n_candidates(database) == 0


def test_what_milvus_lite_cannot_read_is_set_aside_at_its_start_and_embedded_again(
    stack, database, vector_store, run_id
):
    folder = stack.data_dir / "milvus" / "collections" / _COLLECTION
    stack.kill("milvus")
    for manifest in folder.glob("manifest.json*"):
        manifest.write_text("{")
    stack.up(0, dispatcher=False)

    assert _advance(database, vector_store, run_id) is Stage.EMBED
    assert _queued(database, run_id, Stage.EMBED) == _items(database)
    assert list((stack.data_dir / "milvus-damaged").glob(f"{_COLLECTION}-*"))


def test_vectors_that_are_there_twice_are_merged_before_the_search(
    stack, database, vector_store, run_id
):
    items = _items(database)
    keys = [_key(item) for item in items]
    double_rows(stack, vector_store, _COLLECTION, keys, _vectors(items))

    assert _advance(database, vector_store, run_id) is Stage.SEARCH

    assert held(vector_store, _COLLECTION) == sorted(keys)
    assert _queued(database, run_id, Stage.EMBED) == []


def test_what_a_restart_of_milvus_lost_during_the_search_is_embedded_and_all_searched_again(
    stack, database, vector_store, run_id
):
    _advance(database, vector_store, run_id)
    queries = _queued(database, run_id, Stage.SEARCH)
    stack.kill("milvus")
    stack.up(0, dispatcher=False)
    vector_store.load(_COLLECTION)  # the kill may have torn the index
    lost = _items(database)[-2:]
    _lose(vector_store, lost)
    _search(database, run_id)

    assert _advance(database, vector_store, run_id) is Stage.EMBED
    assert _queued(database, run_id, Stage.EMBED) == lost
    assert _n_candidates(database) == 0

    _embed(database, vector_store, run_id, lost)
    _do_queued(database, run_id)
    assert _advance(database, vector_store, run_id) is Stage.SEARCH
    assert _queued(database, run_id, Stage.SEARCH) == queries

    _search(database, run_id)
    assert _advance(database, vector_store, run_id) is Stage.SCORE
    assert _n_candidates(database) == len(queries)


def test_another_run_that_searched_the_index_meanwhile_searches_again(
    database, vector_store, run_id
):
    with database.begin() as connection:
        other = _second_run(connection, run_id)
    assert _advance(database, vector_store, other) is Stage.SEARCH
    lost = _items(database)[:1]
    _lose(vector_store, lost)
    _search(database, other)
    assert _advance(database, vector_store, run_id) is Stage.EMBED

    assert _advance(database, vector_store, other) is None, "the first one is mending the index"

    _embed(database, vector_store, run_id, lost)
    _do_queued(database, run_id)
    assert _advance(database, vector_store, other) is Stage.EMBED
    assert _queued(database, other, Stage.EMBED) == []
    assert _n_candidates(database) == 0
    assert _advance(database, vector_store, other) is Stage.SEARCH
    assert len(_queued(database, other, Stage.SEARCH)) == 5


def test_a_vector_that_is_committed_while_the_keys_are_read_is_not_lost(
    stack, database, vector_store, run_id
):
    items = _items(database)
    with database.begin() as connection:
        connection.execute(text("DELETE FROM embedding WHERE item_id = :i"), {"i": items[-1]})
    _lose(vector_store, items[-1:])

    class Racing(VectorStore):
        """A job writes and commits the last vector after the live keys were read."""

        def keys_between(self, collection, start, end):
            if start == "":
                _embed(database, vector_store, run_id, items[-1:])
            return super().keys_between(collection, start, end)

    with Racing(stack.urls().milvus_uri, stack.urls().milvus_token) as racing:
        assert _advance(database, racing, run_id) is Stage.SEARCH


def test_a_run_whose_vectors_are_lost_again_and_again_fails_with_the_reason(
    database, vector_store, run_id
):
    lost = _items(database)[:2]
    for _ in range(3):
        _lose(vector_store, lost)
        assert _advance(database, vector_store, run_id) is Stage.EMBED
        _embed(database, vector_store, run_id, lost)
        _do_queued(database, run_id)
    _lose(vector_store, lost)

    _advance(database, vector_store, run_id)

    with database.begin() as connection:
        state = runs.get_run(connection, run_id).state
        (message,) = connection.execute(
            text("SELECT message FROM failure WHERE reason = 'vectors_lost'")
        ).scalars()
    assert state is RunState.FAILED
    assert "lost 2 vectors again after 3 rounds" in message


def _second_run(connection, run_id):
    first = runs.get_run(connection, run_id)
    return create_rerank_run(
        connection, catalog_id=first.catalog_id, revision=1, index_id=first.index_id,
        query_set_id=first.query_set_id, scorer=first.scorer,
        scorer_fingerprint=first.scorer_fingerprint, params=first.params, plan=RerankPlan(),
    )  # fmt: skip
