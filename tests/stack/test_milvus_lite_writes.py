"""Milvus Lite tells when it started, and counts writes to each collection."""

import numpy as np


def _write(vectors, collection):
    vectors.upsert(collection, ["ab"], np.ones((1, 4), dtype=np.float32))


def test_reading_counts_as_no_write(vector_store):
    vector_store.create("a_v1", dim=4)
    before = vector_store.state("a_v1")

    vector_store.load("a_v1")
    vector_store.flush("a_v1")
    vector_store.search("a_v1", np.ones((1, 4), dtype=np.float32), 1)
    vector_store.count("a_v1")

    assert vector_store.state("a_v1") == before


def test_writes_and_deletions_are_counted_also_by_an_alias(vector_store):
    vector_store.create("a_v1", dim=4)
    vector_store.create("b_v1", dim=4)
    vector_store.set_alias("a", "a_v1")
    of_a, of_b = vector_store.state("a_v1"), vector_store.state("b_v1")

    _write(vector_store, "a_v1")
    _write(vector_store, "a")
    vector_store.delete("a_v1", ["ab"])

    assert vector_store.state("a_v1").writes == of_a.writes + 3
    assert vector_store.state("b_v1") == of_b


def test_each_start_is_another(stack, vector_store):
    before = vector_store.state("a_v1")
    assert vector_store.state("a_v1") == before

    stack.restart("milvus")

    assert vector_store.state("a_v1").incarnation not in (None, before.incarnation)
