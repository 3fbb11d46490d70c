"""Codecs of visual tokens: sizes as promised, losses as named, places as published (§4.5 c–e)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nightshift.models.inputs.codecs.codec import Codec
from nightshift.models.inputs.codecs.product import ProductCodebook, train
from nightshift.models.inputs.codecs.reduce import reduce_tokens
from nightshift.schema.errors import InputError, ModelError
from nightshift.scoring.codecs import Grid, Quantise, Reduce, parse_codec

WIDTH = 16
# Tokens in time alone have no rows and columns.
GRIDS = st.tuples(st.integers(1, 2), st.integers(1, 7), st.integers(1, 7)).filter(
    lambda grid: grid != (2, 1, 1)
)
REDUCES = [
    "sample2",
    "pool2",
    "sample2(replicate)",
    "pool2(replicate)",
    "kmeans(5)",
    "group(4)",
]


def some_tokens(grid: Grid, seed: int = 0) -> NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(int(np.prod(grid)), WIDTH)).astype(np.float32)


def codec(name: str, *, precision: str = "float32", codebook: bytes | None = None) -> Codec:
    return Codec(parse_codec(name), width=WIDTH, precision=precision, codebook=codebook)


def reduce(name: str) -> Reduce:
    reduction = parse_codec(name).reduce
    assert reduction
    return reduction


# Sizes.


@given(
    GRIDS,
    st.sampled_from(["none", *REDUCES]),
    st.sampled_from(["none", "int8"]),
    st.sampled_from(["float32", "float16", "bfloat16"]),
)
def test_an_image_takes_the_bytes_that_its_codec_promises(
    grid: Grid, name: str, quantise: str, precision: str
) -> None:
    spec = name if name == "none" else f"{name}+{quantise}"
    chosen = codec(spec, precision=precision)

    data = chosen.encode(some_tokens(grid), grid)
    shown = chosen.decode(data, grid)

    assert len(data) == chosen.spec.n_bytes(grid, WIDTH, precision)
    kept = chosen.kept(grid)
    assert shown.shape == (int(np.prod(grid)) if kept is None else len(kept), WIDTH)
    assert len(shown) > 0
    assert shown.dtype == np.float32


@given(GRIDS, st.sampled_from(REDUCES), st.integers(0, 100))
def test_encoding_is_a_pure_function_of_the_tokens(grid: Grid, name: str, seed: int) -> None:
    tokens = some_tokens(grid, seed)
    assert codec(name).encode(tokens, grid) == codec(name).encode(tokens.copy(), grid)


# Losses.


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_none_gives_back_every_bit_of_the_models_precision(precision: str) -> None:
    grid = (1, 4, 5)
    tokens = some_tokens(grid)
    if precision == "float16":
        tokens = tokens.astype(np.float16).astype(np.float32)
    if precision == "bfloat16":
        tokens = (tokens.view(np.uint32) & 0xFFFF0000).view(np.float32)
    chosen = codec("none", precision=precision)

    assert chosen.decode(chosen.encode(tokens, grid), grid).tobytes() == tokens.tobytes()


@given(st.integers(0, 1000), st.floats(1e-6, 1e6))
def test_int8_errs_by_half_a_step_of_each_token(seed: int, scale: float) -> None:
    grid = (1, 3, 4)
    tokens = some_tokens(grid, seed) * np.float32(scale)
    tokens[3] = 0

    back = codec("int8").round_trip(tokens, grid)

    steps = np.abs(tokens).max(axis=1, keepdims=True) / 127
    assert (np.abs(back - tokens) <= 0.501 * steps).all()


def test_a_product_code_errs_less_with_more_parts() -> None:
    grid = (1, 32, 32)
    sample, tokens = some_tokens(grid, 1), some_tokens(grid, 2)
    errors = []
    for parts in (1, 2, 4, 8, 16):
        rule = Quantise(kind="pq", parts=parts, bits=4)
        book = train(rule, sample).to_bytes()
        back = codec(f"pq({parts},4)", codebook=book).round_trip(tokens, grid)
        errors.append(float(((back - tokens) ** 2).mean()))

    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.1 * errors[0]


def test_a_codebook_that_holds_the_tokens_changes_nothing() -> None:
    grid = (1, 4, 4)
    tokens = some_tokens(grid)
    # One part whose sixteen codes are the tokens themselves.
    book = train(Quantise(kind="pq", parts=1, bits=4), tokens).to_bytes()

    back = codec("pq(1,4)", codebook=book).round_trip(tokens, grid)

    assert back == pytest.approx(tokens, abs=1e-6)


def test_a_codebook_is_the_same_each_time_and_reads_back() -> None:
    rule, sample = Quantise(kind="pq", parts=4, bits=5), some_tokens((1, 30, 30))

    book = train(rule, sample)

    assert book.to_bytes() == train(rule, sample).to_bytes()
    reread = ProductCodebook(book.to_bytes())
    assert reread.encode(sample) == book.encode(sample)
    assert reread.width == WIDTH


# Places: skip and replicate.


@given(GRIDS)
def test_sampling_shows_the_top_left_of_each_block_where_it_stood(grid: Grid) -> None:
    time, height, width = grid
    tokens = some_tokens(grid)
    rows, columns = max(1, height // 2), max(1, width // 2)

    kept = codec("sample2").kept(grid)
    shown = codec("sample2").round_trip(tokens, grid)

    assert kept is not None
    expected = [
        (t * height + 2 * r) * width + 2 * c
        for t in range(time)
        for r in range(rows)
        for c in range(columns)
    ]
    assert kept.tolist() == expected
    assert (shown == tokens[expected]).all()


@given(GRIDS, st.sampled_from(["sample2", "pool2"]))
def test_replicating_keeps_the_length_and_what_has_no_block(grid: Grid, name: str) -> None:
    _, height, width = grid
    tokens = some_tokens(grid)
    chosen = codec(f"{name}(replicate)")

    shown = chosen.round_trip(tokens, grid).reshape(*grid, WIDTH)

    assert chosen.kept(grid) is None
    laid = tokens.reshape(*grid, WIDTH)
    for row in range(height):
        for column in range(width):
            top, left = row // 2 * 2, column // 2 * 2
            block = laid[:, top : top + 2, left : left + 2]
            complete = block.shape[1:3] == (2, 2)
            if not complete:
                expected = laid[:, row, column]
            elif name == "sample2":
                expected = block[:, 0, 0]
            else:
                expected = block.mean(axis=(1, 2))
            assert shown[:, row, column] == pytest.approx(expected, abs=1e-6)


def test_pooling_averages_each_block() -> None:
    grid = (1, 3, 4)  # the last row has no partner and is dropped
    laid = some_tokens(grid).reshape(3, 4, WIDTH)

    shown = codec("pool2").round_trip(laid.reshape(-1, WIDTH), grid)

    assert shown[0] == pytest.approx(laid[:2, :2].mean(axis=(0, 1)), abs=1e-6)
    assert shown[1] == pytest.approx(laid[:2, 2:].mean(axis=(0, 1)), abs=1e-6)
    assert len(shown) == 2


# Clusters and groups: tokens that are alike stand for one another.


@pytest.mark.parametrize("name", ["kmeans(3)", "group(4)"])
def test_tokens_of_one_kind_become_their_mean(name: str) -> None:
    grid = (1, 3, 4)
    directions = np.eye(3, WIDTH, dtype=np.float32) * 10
    kinds = np.tile([0, 1, 2], 4)
    tokens = directions[kinds] + 0.01 * some_tokens(grid)

    shown = codec(name).round_trip(tokens, grid)

    for kind in range(3):
        mean = tokens[kinds == kind].mean(axis=0)
        assert shown[kinds == kind] == pytest.approx(np.tile(mean, (4, 1)), abs=1e-5)


def test_no_token_is_grouped_with_itself_where_all_are_unlike() -> None:
    # The published code pairs a token with itself where every cosine is negative.
    tokens = np.concatenate([np.eye(2, WIDTH), -np.eye(2, WIDTH)]).astype(np.float32)[[0, 2]]

    reduced = reduce_tokens(reduce("group(2)"), tokens, (1, 1, 2))

    assert reduced.index is not None
    assert reduced.index.tolist() == [0, 0]


@pytest.mark.parametrize("name", ["kmeans(50)", "group(2)"])
def test_equal_tokens_are_no_trouble(name: str) -> None:
    tokens = np.zeros((12, WIDTH), np.float32)
    assert (codec(name).round_trip(tokens, (1, 3, 4)) == 0).all()


def test_fewer_tokens_than_clusters_stay_as_they_are() -> None:
    tokens = some_tokens((1, 2, 2))
    assert (codec("kmeans(5)").round_trip(tokens, (1, 2, 2)) == tokens).all()


# What is refused.


def test_numbers_that_are_not_finite_are_refused() -> None:
    tokens = some_tokens((1, 2, 2))
    tokens[1, 3] = np.inf
    with pytest.raises(InputError, match="not finite"):
        codec("int8").encode(tokens, (1, 2, 2))


@pytest.mark.parametrize("name", ["sample2", "pool2(replicate)"])
def test_an_image_without_rows_and_columns_has_no_blocks(name: str) -> None:
    with pytest.raises(ModelError, match="tiles"):
        codec(name).encode(some_tokens((6, 1, 1)), (6, 1, 1))
    with pytest.raises(ModelError, match="tiles"):
        codec(name).kept((6, 1, 1))


def test_tokens_that_do_not_fill_their_grid_are_refused() -> None:
    with pytest.raises(InputError, match="grid of 1 × 2 × 3"):
        codec("sample2").encode(some_tokens((1, 2, 2)), (1, 2, 3))


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x"])
def test_bytes_of_another_length_are_refused(change) -> None:
    data = codec("int8").encode(some_tokens((1, 2, 2)), (1, 2, 2))
    with pytest.raises(InputError, match="build them again"):
        codec("int8").decode(change(data), (1, 2, 2))


def test_a_product_code_that_does_not_fit_is_refused() -> None:
    tokens = some_tokens((1, 8, 8))
    with pytest.raises(ModelError, match="divisor of 16"):
        train(Quantise(kind="pq", parts=3, bits=2), tokens)
    with pytest.raises(ModelError, match="256 codes and was given 64"):
        train(Quantise(kind="pq", parts=4, bits=8), tokens)
    with pytest.raises(ModelError, match="no codebook"):
        codec("pq(4,8)")
    book = train(Quantise(kind="pq", parts=4, bits=2), tokens).to_bytes()
    with pytest.raises(ModelError, match="16 numbers, the model's have 32"):
        Codec(parse_codec("pq(4,2)"), width=32, precision="float32", codebook=book)
    with pytest.raises(ModelError, match="cannot be read"):
        codec("pq(4,2)", codebook=b"nonsense")
