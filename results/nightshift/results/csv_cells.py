"""Escaping of CSV cells: no spreadsheet reads a text as a formula, and escaping is reversible."""

import re

__all__ = ["from_csv_cell", "to_csv_cell"]

# What spreadsheets skip before they look whether a cell is a formula, and what ends a cell in one
# that expects another separator or no quotation marks.
_INVISIBLE = "\\x00-\\x1f\\x7f-\\x9f\\xad\\u200b-\\u200f\\u202a-\\u202e\\u2060-\\u2069\\ufeff"
_SKIPPED = f"['\"\\s{_INVISIBLE}]*"
_FORMULA = f"{_SKIPPED}[=+\\-@\\uff1d\\uff0b\\uff0d\\uff20\\u2212]"
_SEPARATOR = '(?<=[,;|"\\t\\r\\n])'
_START = f"\\A(?=(?:{_FORMULA}|'*[\\t\\r\\n]))|{_SEPARATOR}(?={_FORMULA})"
_GUARDED = f"\\A'(?=(?:{_FORMULA}|'*[\\t\\r\\n]))|{_SEPARATOR}'(?={_FORMULA})"

_START_PATTERN, _GUARDED_PATTERN = re.compile(_START), re.compile(_GUARDED)


def to_csv_cell(text: str) -> str:
    """The text with a `'` wherever a spreadsheet might begin a formula.

    That is where it begins, and behind each `,` `;` `|` `"`, tab or line break in it, if what comes
    next, blanks and quotation marks apart, is `=`, `+`, `-` or `@`, ordinary or of full width. A
    text that begins with a tab or a line break gets one too.
    """
    return _START_PATTERN.sub("'", text)


def from_csv_cell(cell: str) -> str:
    """The inverse of `to_csv_cell`: takes one `'` away at each such place."""
    return _GUARDED_PATTERN.sub("", cell)
