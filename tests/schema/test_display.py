"""Text from outside is shown without its power over a terminal, and nothing of it is lost."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshift.schema.display import to_json, visible

HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;x\x07\x1b[2J", "\\x1b]0;x\\x07\\x1b[2J"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("a\nINFO b\r\tc", "a\\nINFO b\\r\\tc"),
        ("\ufeffa\u200b\u2028\U000e0041", "\\ufeffa\\u200b\\u2028\\U000e0041"),
        ("größer 寿司 שלום 👍", "größer 寿司 שלום 👍"),
    ],
)
def test_what_a_terminal_would_obey_or_hide_is_written_out(text, shown):
    assert visible(text) == shown


@given(st.text(st.characters(codec=None)))
def test_no_control_is_left_in_any_text_or_json(text):
    for made in (visible(text), to_json({text: [text]})):
        assert not {unicodedata.category(sign) for sign in made} & HIDDEN
    assert json.loads(to_json({"a": text})) == json.loads(json.dumps({"a": text}))


def test_a_line_feed_stays_where_it_is_wanted():
    assert visible("a\nb\x07", keep="\n") == "a\nb\\x07"
    assert to_json({"a": 1}, indent=1) == '{\n "a": 1\n}'
