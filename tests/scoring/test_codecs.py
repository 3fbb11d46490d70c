"""Names of codecs, and the bytes that they promise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshift.schema.errors import ConfigurationError
from nightshift.scoring.codecs import CodecSpec, Quantise, Reduce, parse_codec

REDUCES = st.one_of(
    st.none(),
    st.builds(
        Reduce,
        kind=st.sampled_from(["sample2", "pool2"]),
        size=st.just(2),
        replicate=st.booleans(),
    ),
    st.builds(
        Reduce,
        kind=st.sampled_from(["kmeans", "group"]),
        size=st.integers(2, 65_536),
        replicate=st.just(True),
    ),
)
QUANTISES = st.one_of(
    st.builds(Quantise, kind=st.sampled_from(["none", "int8"])),
    st.builds(Quantise, kind=st.just("pq"), parts=st.integers(1, 65_536), bits=st.integers(1, 12)),
)


@given(REDUCES, QUANTISES)
def test_a_name_reads_back_as_what_it_names(reduce: Reduce | None, quantise: Quantise) -> None:
    spec = CodecSpec(reduce=reduce, quantise=quantise)

    assert parse_codec(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        (" kmeans( 70 ) + pq(448, 8)", "kmeans(70)+pq(448,8)"),
        ("sample2+none", "sample2"),
        ("none", "none"),
    ],
)
def test_a_name_has_one_canonical_form(text: str, canonical: str) -> None:
    assert str(parse_codec(text)) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "",
        "zip",
        "pq",
        "pq(448)",
        "pq(0,8)",
        "pq(448,13)",
        "int8+sample2",
        "int8+int8",
        "sample2+pool2",
        "kmeans(1)",
        "group(x)",
        "sample2(skip)",
        "none(1)",
        "int8+",
        "sample2+pool2+int8",
    ],
)
def test_what_is_no_codec_is_refused_with_the_forms_that_are(text: str) -> None:
    with pytest.raises(ConfigurationError, match="REDUCE"):
        parse_codec(text)


def test_only_the_plain_tokens_are_lossless() -> None:
    names = ["none", "int8", "pq(4,8)", "sample2", "pool2", "kmeans(4)", "group(4)"]
    assert [name for name in names if parse_codec(name).lossless] == ["none"]
    assert [name for name in names if parse_codec(name).trained] == ["pq(4,8)"]


@pytest.mark.parametrize(
    ("name", "n_bytes"),
    # Qwen2.5-VL-7B, 448 × 448 and bfloat16: the table of methods §4.2.
    [
        ("none", 256 * 3584 * 2),
        ("pq(448,8)", 256 * 448),
        ("pq(112,8)", 256 * 112),
        ("int8", 256 * 3588),
        ("sample2", 64 * 3584 * 2),
        ("pool2+pq(448,8)", 64 * 448),
        ("kmeans(70)", 70 * 3584 * 2 + 256),
        ("group(4)+int8", 64 * 3588 + 256),
    ],
)
def test_the_bytes_of_an_image_are_those_of_the_published_sizes(name: str, n_bytes: int) -> None:
    assert parse_codec(name).n_bytes((1, 16, 16), 3584, "bfloat16") == n_bytes
