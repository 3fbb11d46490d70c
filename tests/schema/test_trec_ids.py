"""Every id is one word of a TREC file, and the word gives the id back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshift.schema.trec_ids import from_trec_id, to_trec_id


@pytest.mark.parametrize(
    ("external_id", "word"),
    [
        ("a b", "a%20b"),
        ("a%20b", "a%2520b"),
        ("a\u00a0b", "a%C2%A0b"),
        ("a\x00\t\x85", "a%00%09%C2%85"),
        ("\ufeffa\u2028", "%EF%BB%BFa%E2%80%A8"),
        ("", "%"),
        ("%", "%25"),
        ("größe-寿司", "größe-寿司"),
    ],
)
def test_what_would_end_a_word_is_encoded(external_id, word):
    assert to_trec_id(external_id) == word
    assert from_trec_id(word) == external_id


@given(st.text(), st.text(alphabet="%20aA C3\t"))
def test_no_two_ids_become_one_word(first, second):
    for external_id in (first, second):
        word = to_trec_id(external_id)
        assert word.split() == [word]
        assert from_trec_id(word) == external_id


@pytest.mark.parametrize("word", ["Caf%C3%A9", "50%", "%zz", "a%2fb", "%FF"])
def test_a_percent_sign_of_another_program_stays(word):
    assert from_trec_id(word) == word
