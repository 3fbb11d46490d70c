"""Texts are broken and cut so that they fit their box."""

from hypothesis import given
from hypothesis import strategies as st

from nightshift.results.canvas import text_width, wrap_text

WORDS = st.text(st.sampled_from("ab iWm,."), min_size=1, max_size=80).map(
    lambda words: " ".join(words.split())
)


@given(words=WORDS, width=st.integers(40, 300), lines=st.integers(1, 3))
def test_lines_are_never_wider_or_more_than_allowed(words, width, lines):
    broken = wrap_text(words, 12, width, lines)

    assert len(broken) <= lines
    assert all(text_width(line, 12) <= width for line in broken)


@given(words=WORDS, width=st.integers(40, 300))
def test_a_text_that_has_room_is_kept_whole(words, width):
    broken = wrap_text(words, 12, width, max_lines=len(words) + 1)

    assert "".join(broken).replace(" ", "") == words.replace(" ", "")


def test_a_cut_is_marked():
    assert wrap_text("a small red circle left of a large blue square", 12, 100) == [
        "a small red circle…"
    ]


def test_words_stay_whole_where_they_can():
    assert wrap_text("a small red circle", 12, 70, max_lines=2) == ["a small red", "circle"]
