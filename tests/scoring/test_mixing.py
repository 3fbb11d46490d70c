"""One embedding for text and image together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nightshift.scoring.mixing import mix_item, mix_query, normalise, pool, top_share

vectors = arrays.arrays(np.float32, 5, elements=st.floats(-8, 8, width=32)).filter(
    lambda v: np.linalg.norm(v) > 0.1
)


def test_a_query_mixes_features_as_they_are_and_then_normalises() -> None:
    image, text = np.array([10, 0], np.float32), np.array([0, 5], np.float32)

    assert mix_query(image, text) == pytest.approx(np.array([8, 1]) / np.sqrt(65))


def test_an_item_mixes_directions() -> None:
    image, text = np.array([10, 0], np.float32), np.array([0, 5], np.float32)

    assert mix_item(image, text) == pytest.approx(np.array([0.7, 0.3]) / np.sqrt(0.58))


@given(vectors, vectors, st.floats(0.5, 20))
def test_only_a_query_depends_on_the_length_of_its_features(image, text, scale: float) -> None:
    longer = (image * np.float32(scale)).astype(np.float32)

    assert mix_item(longer, text) == pytest.approx(mix_item(image, text), abs=1e-4)


@given(vectors)
def test_one_feature_is_pooled_to_itself(vector) -> None:
    assert np.array_equal(pool(vector[None]), vector)


@given(vectors)
def test_the_same_feature_twice_is_pooled_to_itself(vector) -> None:
    assert pool(np.stack([vector, vector])) == pytest.approx(vector, rel=1e-4, abs=1e-5)


def test_pooling_weighs_directions_alike() -> None:
    pooled = pool(np.array([[100, 0], [0, 1]], np.float32))

    assert normalise(pooled) == pytest.approx(np.array([1, 1]) / np.sqrt(2))


def test_zeros_become_nan_and_are_not_hidden() -> None:
    zero, entry = np.zeros(2, np.float32), np.array([0, 1], np.float32)

    assert np.isnan(normalise(zero)).all()
    assert np.isnan(mix_item(zero, entry)).all()
    assert np.isnan(mix_query(entry, -4 * entry)).all()


def test_the_share_of_the_largest_dimensions_is_of_the_squared_length() -> None:
    even = np.full(20, 3, np.float32)
    massive = np.array([0, -8, 0, 0, 0, 0, 6, *[0] * 13], np.float32)
    halves = np.array([*[1] * 10, *[-2] * 10], np.float32)

    assert top_share(np.stack([even, massive, halves])) == pytest.approx([5 / 20, 1, 20 / 50])
    assert top_share(np.ones((1, 3), np.float32)) == pytest.approx([1])


@given(vectors, st.floats(0.1, 20))
def test_the_share_does_not_depend_on_length_or_order(vector, scale: float) -> None:
    (share,) = top_share(vector[None], top=2)

    assert top_share((vector[::-1] * np.float32(scale))[None], top=2) == pytest.approx([share])
    assert 2 / 5 - 1e-9 <= share <= 1 + 1e-9
