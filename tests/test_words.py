"""The words of the project are plain, and the metaphors that stay are explained."""

import re

import pytest

from tests.words import ROOMS, ROOT, name_remedy, offences

METAPHORS = {"doorbell", "ledger", "lease", "fencing token", "claim", "drill", "receipt"}


@pytest.mark.parametrize("room", ROOMS)
def test_every_word_of_a_room_is_plain(room):
    listed = "\n".join(map(str, offences(room)))

    assert not listed, listed


@pytest.mark.parametrize("name", ["one", "_found", "whole", "TellTold", "why_not", "_MOST_ROUNDS"])
def test_a_name_that_says_nothing_is_listed(name):
    assert name_remedy(name)


@pytest.mark.parametrize("name", ["item_id", "foundation", "max_rounds", "almost", "reopened"])
def test_a_name_that_says_what_it_holds_is_not_listed(name):
    assert name_remedy(name) is None


def test_the_glossary_explains_every_metaphor_that_stays():
    glossary = (ROOT / "docs" / "glossary.md").read_text("utf-8")
    explained = set(re.findall(r"^\| \*\*(.+?)\*\* \|", glossary, re.MULTILINE))

    assert explained >= METAPHORS
