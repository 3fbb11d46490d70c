"""Printing: JSON for programs, tables for people."""

import errno
import logging
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from nightshift.schema.display import visible
from nightshift.stores.files.addresses import without_password

__all__ = [
    "VisibleFormatter",
    "by_reason",
    "duration",
    "figure",
    "make_console",
    "make_table",
    "rate",
]

#: Width of tables that go into a file or a pipe, in characters.
_PIPE_WIDTH = 160


class VisibleFormatter(logging.Formatter):
    """Log lines for a terminal: one a record but for tracebacks, without controls and secrets."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line of a record."""
        record.message = visible(without_password(record.message))
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: ANN401, N802 - logging's name and type
        """The traceback of a record."""
        return visible(without_password(super().formatException(ei)), keep="\n")


class _VisibleTable(Table):
    """Cells of other people's text are one line each."""

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:  # noqa: ANN401 - rich's
        shown = (visible(cell) if isinstance(cell, str) else cell for cell in cells)
        super().add_row(*shown, **options)


class _VisibleConsole(Console):
    """Texts of other people are shown and not obeyed, whether they come as cells or as lines."""

    def on_broken_pipe(self) -> None:
        """Leave it to the command's boundary; rich would exit with 1."""
        raise BrokenPipeError(errno.EPIPE, "the reader went away")

    def render_str(self, text: str, **options: Any) -> Text:  # noqa: ANN401 - rich's
        return super().render_str(visible(text, keep="\n"), **options)


def make_console(*, terminal: bool | None = None, stderr: bool = False) -> Console:
    """For standard output; what is piped is not cut to the width of a terminal that is not there.

    Args:
        terminal: Whether the text ends on one; None finds out.
        stderr: For standard error instead.
    """
    stream = sys.stderr if stderr else sys.stdout
    terminal = stream.isatty() if terminal is None else terminal
    return _VisibleConsole(
        stderr=stderr,
        width=None if terminal else _PIPE_WIDTH,
        force_terminal=terminal,
        # Ids and texts of catalogues are shown as they are, brackets and colons included.
        highlight=False,
        markup=False,
        emoji=False,
    )


def make_table(*columns: str, right: str = "", title: str | None = None) -> Table:
    """An empty table.

    Args:
        columns: Headings.
        right: Headings of the columns to align on the right, separated by blanks.
        title: Above the table.
    """
    table = _VisibleTable(
        box=SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False
    )
    for column in columns:
        table.add_column(column, justify="right" if column in right.split() else "left")
    return table


def by_reason(reasons: Mapping[str, int]) -> str:
    """Such as `2 image_missing, 1 no_prompt`, the most frequent first."""
    return ", ".join(f"{count:,} {reason}" for reason, count in Counter(reasons).most_common())


def figure(value: float | None, digits: int = 3) -> str:
    """A number of `digits` decimals, a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def rate(units_per_s: float | None) -> str:
    """Units a second."""
    if units_per_s is None:
        return "–"
    return f"{units_per_s:,.{0 if units_per_s >= 100 else 1}f}/s"


def duration(seconds: float | None) -> str:
    """Such as `8 s`, `3:20` or `12:03:20`."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
