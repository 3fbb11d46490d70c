"""Comparing Milvus with Postgres: every loss shows, and what was verified is not read again."""

from hashlib import sha256

import numpy as np
import pytest
from sqlalchemy import text

from nightshift.schema.errors import ServiceUnavailableError
from nightshift.schema.states import RunState
from nightshift.stores.index import indexes
from nightshift.stores.index.comparison import compare
from nightshift.stores.index.embeddings import write_embeddings
from nightshift.stores.index.key_pages import key_pages
from nightshift.stores.index.milvus import ServerState, VectorStore
from nightshift.stores.index.verified_ranges import announce_writes, range_of
from nightshift.stores.ledger import runs
from tests.stores.index.damage import double_rows
from tests.stores.ledger_helpers import add_index_run

_N_ITEMS = 600


@pytest.fixture(params=["lite", pytest.param("server", marks=pytest.mark.milvus_standalone)])
def store(request):
    """Milvus Lite, or a server of Milvus."""
    if request.param == "lite":
        yield request.getfixturevalue("vector_store")
        return
    server = request.getfixturevalue("milvus_standalone")
    with VectorStore(server.uri, server.token) as vectors:
        yield vectors
        for collection in vectors.collections():
            vectors.drop(collection)


@pytest.fixture
def lite_index(database, vector_store):
    return _index(database, vector_store)


@pytest.fixture
def index(database, store):
    return _index(database, store)


def _index(database, vectors):
    """A ready index of embedded items that was compared once."""
    run_id = add_index_run(database, n_jobs=1, per_job=_N_ITEMS)
    with database.begin() as connection:
        index = indexes.get_index(connection, runs.get_run(connection, run_id).index_id)
        connection.execute(text("UPDATE job SET state = 'done', finished_at = now()"))
        runs.set_run_state(connection, run_id, RunState.DONE)
        items = connection.execute(text("SELECT id FROM item ORDER BY id")).scalars().all()
    vectors.create(index.collection, dim=4)
    _embed(database, vectors, index, run_id, items)
    assert compare(database, vectors, index).n_read == 256
    return index


def _key(number):
    return sha256(str(number).encode()).hexdigest()


def _keys():
    """The keys of the index, grouped by range; the fullest range first."""
    ranges = {}
    for number in range(_N_ITEMS):
        ranges.setdefault(range_of(_key(number)), []).append(_key(number))
    return sorted(ranges.values(), key=len, reverse=True)


def _stranger(number, place=0):
    """A key of a range that nobody owns."""
    return f"{number:02x}{place:062x}"


def _write(vectors, index, keys):
    rows = np.random.default_rng(0).normal(size=(len(keys), 4)).astype(np.float32)
    vectors.upsert(index.collection, keys, rows)
    vectors.flush(index.collection)


def _lose(vectors, index, keys):
    vectors.delete(index.collection, keys)
    vectors.flush(index.collection)


def _embed(database, vectors, index, run_id, items):
    keys = [_key(place) for place, _ in enumerate(items)]
    _write(vectors, index, keys)
    with database.begin() as connection:
        write_embeddings(
            connection, index_id=index.id, run_id=run_id, keys=list(zip(items, keys, strict=True))
        )


def _known(database):
    with database.begin() as connection:
        return list(connection.execute(text("SELECT range FROM index_range")).scalars())


class _Silent(VectorStore):
    """A connection to a server that does not tell when it started."""

    def state(self, _):
        return ServerState(incarnation=None, writes=None)


def test_what_was_verified_is_not_read_again(database, store, index):
    differences = compare(database, store, index)

    assert (differences.n_read, differences.lost, differences.n_orphans) == (0, [], 0)


def test_everything_is_read_where_that_is_asked_for(database, store, index):
    assert compare(database, store, index, everything=True).n_read == 256


def test_one_lost_vector_is_found(database, store, index):
    lost = _key(7)
    _lose(store, index, [lost])

    differences = compare(database, store, index)

    assert differences.lost == [lost]
    assert range_of(lost) not in _known(database)
    assert compare(database, store, index).lost == [lost], "as long as it is lost"


def test_all_vectors_of_a_range_are_found(database, store, index):
    lost = _keys()[0]
    _lose(store, index, lost)

    assert compare(database, store, index).lost == sorted(lost)


def test_all_vectors_are_found(database, store, index):
    _lose(store, index, [_key(number) for number in range(_N_ITEMS)])

    assert len(compare(database, store, index).lost) == _N_ITEMS


def test_a_lost_vector_and_an_orphan_in_another_range_are_found(database, store, index):
    lost = _key(7)
    _lose(store, index, [lost])
    _write(store, index, [_stranger((range_of(lost) + 1) % 256)])

    differences = compare(database, store, index)

    assert (differences.lost, differences.n_orphans) == ([lost], 1)


def test_a_lost_vector_beside_an_orphan_in_one_range_is_found(database, vector_store, lite_index):
    """Counts are as before: Milvus Lite tells that somebody wrote."""
    lost = _key(7)
    _lose(vector_store, lite_index, [lost])
    _write(vector_store, lite_index, [_stranger(range_of(lost))])

    differences = compare(database, vector_store, lite_index)

    assert (differences.lost, differences.n_orphans) == ([lost], 1)


@pytest.mark.parametrize("killed", [False, True])
def test_a_lost_vector_beside_an_orphan_that_a_job_left_is_found(
    database, stack, vector_store, lite_index, killed
):
    lost, left = _key(7), _stranger(range_of(_key(7)))
    with database.begin() as connection:
        announce_writes(connection, lite_index.id, [left])
    _write(vector_store, lite_index, [left])
    _lose(vector_store, lite_index, [lost])
    if killed:
        stack.kill("milvus")
        stack.up(0, dispatcher=False)

    assert compare(database, vector_store, lite_index).lost == [lost]


def test_an_orphan_that_was_known_does_not_hide_a_loss(database, store, index):
    lost = _key(7)
    orphans = [_stranger(range_of(lost)), _stranger(range_of(lost), 1)]
    _write(store, index, orphans)
    assert compare(database, store, index, list_orphans=True).orphans == orphans
    assert compare(database, store, index).n_read == 0
    assert compare(database, store, index).n_orphans == 2

    _lose(store, index, [lost])

    differences = compare(database, store, index)
    assert (differences.lost, differences.n_orphans) == ([lost], 2)


def test_a_vector_that_is_there_twice_does_not_hide_a_loss(
    database, stack, vector_store, lite_index
):
    lost, twice, *_ = _keys()[0]
    _lose(vector_store, lite_index, [lost])
    rows = np.ones((1, 4), dtype=np.float32)
    double_rows(stack, vector_store, lite_index.collection, [twice], rows)

    differences = compare(database, vector_store, lite_index)

    assert (differences.lost, differences.n_duplicates) == ([lost], 1)


def test_an_item_that_was_dropped_does_not_hide_that_a_new_vector_was_lost(database, store, index):
    """The range has as many live keys as before, and Milvus as many rows."""
    dropped, _, *_ = _keys()[0]
    new = dropped[:2] + "f" * 62
    with database.begin() as connection:
        connection.execute(
            text("UPDATE embedding SET key = :new WHERE key = :old"),
            {"new": new, "old": dropped},
        )

    differences = compare(database, store, index)

    assert (differences.lost, differences.n_orphans) == ([new], 1)


def test_on_milvus_lite_all_is_read_after_a_restart(database, stack, vector_store, lite_index):
    stack.kill("milvus")
    stack.up(0, dispatcher=False)

    assert compare(database, vector_store, lite_index).n_read == 256
    assert compare(database, vector_store, lite_index).n_read == 0


def test_on_a_milvus_lite_that_does_not_tell_when_it_started_all_is_read(
    database, stack, vector_store, lite_index
):
    with _Silent(stack.urls().milvus_uri, stack.urls().milvus_token) as silent:
        assert compare(database, silent, lite_index).n_read == 256
        assert compare(database, silent, lite_index).n_read == 256


def test_a_restart_while_keys_are_read_is_an_outage(database, stack, vector_store, lite_index):
    class Restarted(VectorStore):
        def keys_between(self, collection, start, end):
            if start == "":
                stack.restart("milvus")
            return super().keys_between(collection, start, end)

    with (
        Restarted(stack.urls().milvus_uri, stack.urls().milvus_token) as restarted,
        pytest.raises(ServiceUnavailableError, match="restarted"),
    ):
        compare(database, restarted, lite_index, everything=True)


@pytest.mark.milvus_standalone
@pytest.mark.parametrize("count_all_up_to", [0, 200_000])
def test_on_a_server_only_ranges_that_differ_are_read(
    database, milvus_standalone, monkeypatch, count_all_up_to
):
    """In a large collection 16 counts come first."""
    monkeypatch.setattr("nightshift.stores.index.comparison._COUNT_ALL_UP_TO", count_all_up_to)
    with VectorStore(milvus_standalone.uri, milvus_standalone.token) as server:
        index = _index(database, server)
        assert compare(database, server, index).n_read == 0
        lost = [_key(7), _key(8)]
        _lose(server, index, lost)

        differences = compare(database, server, index)

        assert differences.lost == sorted(lost)
        assert differences.n_read == len({range_of(key) for key in lost})
        server.drop(index.collection)


@pytest.mark.milvus_standalone
def test_of_a_server_that_does_not_tell_when_it_started_ranges_with_orphans_are_read(
    database, milvus_standalone
):
    with _Silent(milvus_standalone.uri, milvus_standalone.token) as server:
        index = _index(database, server)
        assert compare(database, server, index).n_read == 0
        orphan, lost = _stranger(range_of(_key(7))), _key(8)
        _write(server, index, [orphan])
        assert compare(database, server, index).n_read == 1
        assert compare(database, server, index).n_read == 1
        _lose(server, index, [lost])
        assert compare(database, server, index).lost == [lost]

        with database.begin() as connection:
            connection.execute(
                text("UPDATE index_range SET verified_at = verified_at - interval '2 days'")
            )
        assert compare(database, server, index).n_read == 256
        server.drop(index.collection)


def test_nothing_is_kept_while_a_job_may_be_writing(database, store, index):
    with database.begin() as connection:
        connection.execute(text("UPDATE job SET state = 'queued', finished_at = NULL"))
        connection.execute(text("UPDATE run SET state = 'running', finished_at = NULL"))
        connection.execute(text("DELETE FROM index_range"))

    compare(database, store, index)

    assert _known(database) == []


def test_nothing_is_kept_where_that_is_asked_for(database, store, index):
    with database.begin() as connection:
        connection.execute(text("DELETE FROM index_range"))

    assert compare(database, store, index, keep=False).n_read == 256
    assert _known(database) == []


def test_what_is_about_to_be_written_is_read_again(database, store, index):
    keys = [_key(3), _key(4)]
    with database.begin() as connection:
        announce_writes(connection, index.id, keys)

    assert {range_of(key) for key in keys}.isdisjoint(_known(database))
    assert compare(database, store, index).n_read > 0


@pytest.mark.parametrize(
    ("ranges", "sizes", "expected"),
    [
        ([], {}, []),
        ([0], {}, [("", "01")]),
        ([255], {}, [("ff", None)]),
        ([3, 4, 9], {3: 5, 4: 5}, [("03", "05"), ("09", "0a")]),
        ([3, 4, 5], {3: 5, 4: 5, 5: 1}, [("03", "05"), ("05", "06")]),
        ([2, 3], {2: 3, 3: 99}, [("02", "03"), *(
            (f"03{part:x}" if part else "03", f"03{part + 1:x}" if part < 15 else "04")
            for part in range(16)
        )]),
    ],
)  # fmt: skip
def test_pages_cover_ranges(ranges, sizes, expected):
    assert list(key_pages(ranges, [sizes.get(n, 0) for n in range(256)], page=10)) == expected


def test_pages_of_all_ranges_hold_every_key_once():
    keys = [_key(number) for number in range(3000)]
    sizes = [12] * 256

    pages = list(key_pages(range(256), sizes, page=5))

    held = [key for start, end in pages for key in keys if key >= start and (not end or key < end)]
    assert sorted(held) == sorted(keys)
