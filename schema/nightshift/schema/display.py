"""Safe display of text from outside: control and invisible characters are escaped."""

import json
import re
from collections.abc import Callable

__all__ = ["to_json", "visible"]

# C0 and C1 controls, direction marks, line separators, characters of no width, surrogates and tags.
# Spaces of other widths stay: texts in Chinese and Japanese use them.
_HIDDEN = (
    "\\x00-\\x1f\\x7f-\\x9f\\xad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f"
    "\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufeff\\uffa0\\ufff0-\\ufffb\\ufffe\\uffff"
    "\\ud800-\\udfff\\U0001bca0-\\U0001bca3\\U0001d173-\\U0001d17a\\U000e0000-\\U000e0fff"
)
_UNSAFE = re.compile(f"[{_HIDDEN}]")
_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}


def visible(value: str, *, keep: str = "") -> str:
    r"""Escape control and invisible characters, such as `\x1b` and `\u202e`.

    Args:
        value: Any text.
        keep: Characters that are not escaped, such as a line feed.
    """
    return _UNSAFE.sub(lambda match: match[0] if match[0] in keep else _escape(match[0]), value)


def to_json(
    value: object, *, default: Callable[[object], object] | None = None, indent: int | None = None
) -> str:
    """Serialise as JSON; letters of every script stay readable, such characters are escaped.

    Args:
        value: Anything that `json.dumps` takes.
        default: As in `json.dumps`: converts other objects.
        indent: Spaces per level; one line if None.
    """
    text = json.dumps(value, default=default, ensure_ascii=False, indent=indent)
    # Outside of strings, JSON has no other control character than the line feeds of `indent`.
    return _UNSAFE.sub(lambda match: "\n" if match[0] == "\n" else _json_escape(match[0]), text)


def _escape(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return _SHORT.get(char, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
