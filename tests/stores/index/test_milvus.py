"""Vectors in Milvus: one suite for Lite and for a standalone server, then what only Lite does."""

import pickle
import threading
from collections.abc import Iterator
from hashlib import sha256

import numpy as np
import pytest
from numpy.typing import NDArray

from nightshift.schema.errors import (
    ConfigurationError,
    ConflictError,
    NotFoundError,
    ServiceUnavailableError,
)
from nightshift.stack import Stack
from nightshift.stores.index.milvus import INDEX_TYPES, VectorStore
from nightshift.stores.index.milvus.indexes import build_parameters
from nightshift.stores.index.milvus.rows import key_ranges, ordered
from nightshift.stores.index.writer import hold_writer
from nightshift.stores.postgres.database import Database
from tests.standalone_milvus import MilvusServer
from tests.stores.index.damage import tear_index

DIM = 24
_IVF_AT_NIGHT = [pytest.param(k, marks=pytest.mark.night) for k in ("IVF_FLAT", "IVF_SQ8")]


@pytest.fixture(
    params=["lite", pytest.param("standalone", marks=pytest.mark.milvus_standalone)],
)
def store(request: pytest.FixtureRequest) -> Iterator[VectorStore]:
    if request.param == "lite":
        yield request.getfixturevalue("vector_store")
        return
    server = request.getfixturevalue("milvus_standalone")
    with VectorStore(server.uri, server.token) as store:
        yield store
        for collection in store.collections():
            store.drop(collection)


def key(number: int) -> str:
    return sha256(str(number).encode()).hexdigest()


def unit(count: int, seed: int = 0, dim: int = DIM) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=(count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def share_of_own_found(store: VectorStore, index_type: str) -> float:
    """The share of a hundred vectors that are among the five nearest of themselves."""
    name = f"index_{index_type.lower()}"
    keys = filled(store, name, 1200, index_type)
    results = store.search(name, unit(1200)[:100], 5)
    return sum(keys[n] in {hit.key for hit in hits} for n, hits in enumerate(results)) / 100


def filled(store: VectorStore, name: str, count: int, index_type: str = "FLAT") -> list[str]:
    keys = [key(n) for n in range(count)]
    store.create(name, DIM, index_type)
    store.upsert(name, keys, unit(count))
    store.flush(name)
    return keys


def all_keys(store: VectorStore, name: str) -> list[str]:
    return sorted(value for batch in store.keys(name) for value in batch)


def test_the_kind_of_server_is_known(store: VectorStore, request: pytest.FixtureRequest):
    assert store.is_lite == ("lite" in request.node.name)


def test_flat_search_is_exact(store: VectorStore):
    keys = filled(store, "exact", 700)
    queries = unit(5, seed=1)

    results = store.search("exact", queries, 20)

    scores = queries.astype(np.float64) @ unit(700).astype(np.float64).T
    for hits, row in zip(results, scores, strict=True):
        best = np.argsort(-row)[:20]
        assert [hit.key for hit in hits] == [keys[n] for n in best]
        assert np.allclose([hit.score for hit in hits], row[best], atol=1e-5)


def test_ties_are_ordered_by_key_and_never_cut(store: VectorStore):
    store.create("ties", DIM)
    keys = [key(n) for n in range(120)]
    twin, other = unit(2)
    store.upsert("ties", keys, np.vstack([np.tile(twin, (100, 1)), np.tile(other, (20, 1))]))
    store.flush("ties")

    [hits] = store.search("ties", twin[None], 10)

    assert [hit.key for hit in hits] == sorted(keys[:100])


def test_a_search_returns_what_there_is(store: VectorStore):
    filled(store, "few", 3)
    assert [len(hits) for hits in store.search("few", unit(2, seed=1), 50)] == [3, 3]


def test_an_empty_collection_has_no_hits(store: VectorStore):
    store.create("empty", DIM)
    assert store.search("empty", unit(2), 5) == [[], []]
    assert all_keys(store, "empty") == []


def test_no_queries_give_no_answers(store: VectorStore):
    filled(store, "none", 3)
    assert store.search("none", unit(0), 5) == []


def test_more_queries_than_fit_one_call_come_back_in_order(store: VectorStore):
    keys = filled(store, "many", 300)
    results = store.search("many", unit(300), 1)
    assert [hits[0].key for hits in results] == keys


def test_writing_a_row_again_changes_nothing(store: VectorStore):
    keys = filled(store, "twice", 200)
    store.upsert("twice", keys[:100], unit(200)[:100])
    store.flush("twice")

    assert all_keys(store, "twice") == sorted(keys)
    assert [hit.key for hit in store.search("twice", unit(200)[7:8], 1)[0]] == [keys[7]]


def test_more_rows_than_fit_one_call_all_arrive(store: VectorStore):
    store.create("wide", 2048)
    keys = [key(n) for n in range(1500)]
    store.upsert("wide", keys, unit(1500, dim=2048))
    store.flush("wide")
    assert all_keys(store, "wide") == sorted(keys)


def test_keys_come_in_batches_of_about_the_size_asked_for(vector_store: VectorStore):
    keys = filled(vector_store, "paged", 2000)
    batches = list(vector_store.keys("paged", batch_size=200))
    assert sorted(value for batch in batches for value in batch) == sorted(keys)
    assert len(batches) == 16
    assert max(map(len, batches)) < 200


def test_a_strong_search_sees_what_was_just_written(store: VectorStore):
    keys = filled(store, "fresh", 50)
    for n in range(50, 55):
        vector = unit(55)[n : n + 1]
        store.upsert("fresh", [key(n)], vector)
        assert store.search("fresh", vector, 1, consistency="Strong")[0][0].key == key(n)
    assert key(0) in keys


def test_deleted_rows_are_gone(store: VectorStore):
    keys = filled(store, "gone", 150)
    store.delete("gone", [*keys[:50], key(10**6)])
    store.flush("gone")

    assert all_keys(store, "gone") == sorted(keys[50:])
    results = {hit.key for hit in store.search("gone", unit(150)[:1], 150)[0]}
    assert results == set(keys[50:])


def test_create_is_harmless_when_repeated_but_not_with_another_width(store: VectorStore):
    keys = filled(store, "again", 20)
    store.create("again", DIM)
    assert all_keys(store, "again") == sorted(keys)
    with pytest.raises(ConflictError, match="24 numbers, not 25"):
        store.create("again", DIM + 1)


def test_an_alias_moves_and_is_searched_like_a_collection(store: VectorStore):
    keys = filled(store, "old", 10)
    store.create("new", DIM)
    store.upsert("new", [key(99)], unit(1))
    store.set_alias("current", "old")
    assert store.search("current", unit(10)[3:4], 1)[0][0].key == keys[3]

    store.set_alias("current", "new")
    store.set_alias("current", "new")

    assert [hit.key for hit in store.search("current", unit(1), 5)[0]] == [key(99)]


def test_dropping_takes_the_aliases_along_and_is_harmless_when_repeated(store: VectorStore):
    filled(store, "doomed", 10)
    store.set_alias("name", "doomed")
    store.drop("doomed")
    store.drop("doomed")
    assert not store.has("doomed")
    assert not store.has("name")
    assert "doomed" not in store.collections()


@pytest.mark.parametrize("limit", [0, 16_385])
def test_an_impossible_limit_is_refused(store: VectorStore, limit: int):
    with pytest.raises(ConfigurationError, match="1 to 16384"):
        store.search("any", unit(1), limit)


def test_vectors_that_do_not_fit_are_refused(store: VectorStore):
    filled(store, "strict", 5)
    with pytest.raises(ConflictError, match="24 numbers"):
        store.search("strict", unit(1, dim=25), 3)
    with pytest.raises(ConflictError, match="24 numbers"):
        store.upsert("strict", [key(1)], unit(1, dim=25))
    with pytest.raises(ConflictError, match="1 keys for 2 vectors"):
        store.upsert("strict", [key(1)], unit(2))
    broken = unit(1)
    broken[0, 3] = np.nan
    with pytest.raises(ConflictError, match="not finite"):
        store.upsert("strict", [key(1)], broken)


def test_keys_that_are_no_digests_never_reach_the_server(store: VectorStore):
    filled(store, "quotes", 5)
    for bad in ("x' or key != '", "", "A0", "0" * 65):
        with pytest.raises(ConflictError, match="is no key"):
            store.delete("quotes", [bad])
        with pytest.raises(ConflictError, match="is no key"):
            store.upsert("quotes", [bad], unit(1))


def test_a_missing_collection_is_named(store: VectorStore):
    for attempt in (
        lambda: store.search("nowhere", unit(1), 1),
        lambda: store.upsert("nowhere", [key(1)], unit(1)),
        lambda: store.load("nowhere"),
        lambda: list(store.keys("nowhere")),
        lambda: store.delete("nowhere", [key(1)]),
        lambda: store.set_alias("somewhere", "nowhere"),
    ):
        with pytest.raises(NotFoundError, match="where"):
            attempt()


@pytest.mark.parametrize("kind", ["HNSW", *_IVF_AT_NIGHT])
def test_an_approximate_index_finds_its_own_vectors(store: VectorStore, kind: str):
    assert share_of_own_found(store, kind) >= 0.95


@pytest.mark.night
@pytest.mark.milvus_standalone
@pytest.mark.parametrize("kind", ["IVF_PQ", "SCANN"])
def test_an_approximate_index_that_lite_has_not_finds_its_own_vectors(
    milvus_standalone: MilvusServer, kind: str
):
    with VectorStore(milvus_standalone.uri, milvus_standalone.token) as store:
        assert share_of_own_found(store, kind) >= 0.95
        store.drop(f"index_{kind.lower()}")


def test_readers_and_a_writer_at_once_see_no_gap(store: VectorStore):
    keys = filled(store, "busy", 400)
    vectors = unit(400)
    missing: list[str] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            hits = store.search("busy", vectors[:20], 1)
            missing.extend(keys[n] for n in range(20) if hits[n][0].key != keys[n])

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for start in range(0, 1000, 100):
        more = [key(10_000 + start + n) for n in range(100)]
        store.upsert("busy", more, unit(100, seed=start + 5))
        store.flush("busy")
    stop.set()
    for reader in readers:
        reader.join()

    assert missing == []
    assert len(all_keys(store, "busy")) == 1400


@pytest.mark.milvus_standalone
def test_writers_at_once_lose_nothing_on_a_server(milvus_standalone: MilvusServer):
    uri, token = milvus_standalone.uri, milvus_standalone.token
    with VectorStore(uri, token) as first:
        first.create("crowd", DIM)

        def write(writer: int) -> None:
            with VectorStore(uri, token) as own:
                for batch in range(5):
                    start = writer * 1000 + batch * 100
                    keys = [key(start + n) for n in range(100)]
                    own.upsert("crowd", keys, unit(100, seed=start))

        writers = [threading.Thread(target=write, args=(n,)) for n in range(4)]
        for entry in writers:
            entry.start()
        for entry in writers:
            entry.join()

        assert len(set(all_keys(first, "crowd"))) == 2000
        first.drop("crowd")


@pytest.mark.milvus_standalone
@pytest.mark.parametrize("token", ["", "root:wrong-password"])
def test_a_refused_token_is_named_at_once(milvus_standalone: MilvusServer, token: str):
    with (
        VectorStore(milvus_standalone.uri, token, patience_s=1e9) as stranger,
        pytest.raises(ServiceUnavailableError, match="refuses the token: set NIGHTSHIFT_MILVUS"),
    ):
        stranger.collections()


# Milvus Lite: outages, damage, limits


@pytest.mark.parametrize("kind", ["IVF_PQ", "SCANN", "DISKANN", "AUTOINDEX", "flat"])
def test_lite_is_not_trusted_with_every_index(vector_store: VectorStore, kind: str):
    with pytest.raises(ConfigurationError, match=r"choose one of FLAT, HNSW, IVF_FLAT, IVF_SQ8$"):
        vector_store.create("refused", DIM, kind)
    assert not vector_store.has("refused")


def test_a_collection_that_a_kill_left_without_its_index_gets_the_same_one_again(
    vector_store: VectorStore,
):
    keys = filled(vector_store, "half", 50, "HNSW")
    client = vector_store._connection._connected()
    client.release_collection("half")
    client.drop_index("half", "vector")

    vector_store.load("half")

    assert client.describe_index("half", "vector")["index_type"] == "HNSW"
    assert vector_store.search("half", unit(50)[:1], 1)[0][0].key == keys[0]


def test_work_goes_on_after_a_restart_without_anyone_loading(
    stack: Stack, vector_store: VectorStore
):
    keys = filled(vector_store, "lasting", 300)

    stack.restart("milvus")

    assert vector_store.search("lasting", unit(300)[4:5], 1)[0][0].key == keys[4]
    assert all_keys(vector_store, "lasting") == sorted(keys)


def test_several_readers_may_meet_an_unloaded_collection_at_once(
    stack: Stack, vector_store: VectorStore
):
    keys = filled(vector_store, "rush", 2000, "HNSW")
    stack.restart("milvus")
    first: list[str] = []

    def read() -> None:
        with VectorStore(stack.urls().milvus_uri, stack.urls().milvus_token) as own:
            first.append(own.search("rush", unit(2000)[9:10], 1)[0][0].key)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()

    assert first == [keys[9]] * 4


def test_a_call_waits_for_a_killed_server_to_come_back(stack: Stack, vector_store: VectorStore):
    keys = filled(vector_store, "patient", 100)
    stack.kill("milvus")
    threading.Timer(1.0, stack.up, args=(0,), kwargs={"dispatcher": False}).start()

    vector_store.upsert("patient", [key(500)], unit(1, seed=9))
    vector_store.flush("patient")
    # The kill may have torn the index, which only a writer mends.
    vector_store.load("patient")

    assert all_keys(vector_store, "patient") == sorted([*keys, key(500)])


def test_a_server_that_stays_away_is_an_outage(stack: Stack):
    with (
        VectorStore("http://127.0.0.1:9", patience_s=0.3) as away,
        pytest.raises(
            ServiceUnavailableError, match=r"127\.0\.0\.1:9.*nightshift status"
        ) as caught,
    ):
        away.search("any", unit(1), 1)
    assert pickle.loads(pickle.dumps(caught.value)).service == "milvus"


@pytest.mark.parametrize("kind", ["FLAT", "HNSW", *_IVF_AT_NIGHT])
def test_a_torn_index_is_mended_by_load_and_nothing_is_lost(
    stack: Stack, vector_store: VectorStore, kind: str
):
    name = f"torn_{kind.lower()}"
    keys = filled(vector_store, name, 1000, kind)
    tear_index(stack, vector_store, name)
    fresh = VectorStore(stack.urls().milvus_uri, stack.urls().milvus_token)

    with pytest.raises(ServiceUnavailableError, match="mended"):
        fresh.search(name, unit(1), 1)
    assert fresh.load(name), "it was mended"

    assert all_keys(fresh, name) == sorted(keys)
    assert fresh.search(name, unit(1000)[3:4], 1)[0][0].key == keys[3]
    fresh.close()


def test_writers_at_once_take_turns_on_lite_and_lose_nothing(
    stack: Stack, vector_store: VectorStore, database_url: str
):
    vector_store.create("turns", DIM)
    inside: list[int] = []
    start = threading.Barrier(2)

    def write(writer: int) -> None:
        with (
            Database(database_url) as database,
            VectorStore(stack.urls().milvus_uri, stack.urls().milvus_token) as own,
        ):
            start.wait()
            for batch in range(6):
                first = writer * 10_000 + batch * 300
                with hold_writer(database, own, "worker"):
                    inside.append(writer)
                    own.upsert("turns", [key(first + n) for n in range(300)], unit(300, seed=first))
                    own.flush("turns")
                    inside.append(writer)

    writers = [threading.Thread(target=write, args=(n,)) for n in range(2)]
    for entry in writers:
        entry.start()
    for entry in writers:
        entry.join()
    # What two writers lose between them is lost at the next kill.
    stack.kill("milvus")
    stack.up(0, dispatcher=False)
    # The kill may have torn the index.
    vector_store.load("turns")

    assert len(inside) == 24
    assert inside[::2] == inside[1::2], "one went in while the other was at work"
    assert len(set(all_keys(vector_store, "turns"))) == 3600


def test_flushed_rows_survive_a_kill(stack: Stack, vector_store: VectorStore):
    keys = filled(vector_store, "flushed", 500)
    stack.kill("milvus")
    stack.up(0, dispatcher=False)
    vector_store.load("flushed")  # the kill may have torn the index
    assert all_keys(vector_store, "flushed") == sorted(keys)


# Without a server


def test_duplicate_hits_collapse_to_the_best_one():
    rows = [("b", 0.9), ("a", 0.9), ("b", 0.9), ("c", 0.5), ("a", 0.9)]
    hits = ordered([{"key": key, "distance": score} for key, score in rows])
    assert [(hit.key, hit.score) for hit in hits] == [("a", 0.9), ("b", 0.9), ("c", 0.5)]


@pytest.mark.parametrize("count", [0, 1, 2, 16, 17, 300])
def test_key_ranges_cover_every_key_once(count: int):
    ranges = list(key_ranges(count))
    assert len(ranges) >= count
    for entry in ["0", "00", "0fff", "1", "7a", "f", "ff" * 32, *map(key, range(50))]:
        inside = [r for r in ranges if eval(r, {"key": entry})]
        assert len(inside) == 1, (entry, inside)


@pytest.mark.parametrize("dim", [1, 2, 3, 24, 127, 512, 768, 1152])
def test_product_quantisation_divides_every_width(dim: int):
    assert dim % build_parameters("IVF_PQ", dim)["m"] == 0


def test_every_index_type_has_parameters():
    for index_type in INDEX_TYPES:
        assert all(isinstance(value, int) for value in build_parameters(index_type, 64).values())
