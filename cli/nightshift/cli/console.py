"""Consoles and tables on which no text from outside can control the terminal."""

import errno
import sys
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from nightshift.schema.display import visible

__all__ = ["make_console", "make_table"]

#: Width of tables that go into a file or a pipe, in characters.
_PIPE_WIDTH = 160


class _VisibleTable(Table):
    """A table that shows control characters in its cells escaped, one line a cell."""

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:  # noqa: ANN401 - rich's
        shown = (visible(cell) if isinstance(cell, str) else cell for cell in cells)
        super().add_row(*shown, **options)


class _VisibleConsole(Console):
    """A console that shows control characters escaped, in cells and in lines."""

    def on_broken_pipe(self) -> None:
        """Raises for `error_report` to handle; rich would exit with 1."""
        raise BrokenPipeError(errno.EPIPE, "the reader went away")

    def render_str(self, text: str, **options: Any) -> Text:  # noqa: ANN401 - rich's
        return super().render_str(visible(text, keep="\n"), **options)


def make_console(*, terminal: bool | None = None, stderr: bool = False) -> Console:
    """A console on standard output, 160 characters wide where the output is piped.

    Args:
        terminal: Whether the text goes to a terminal; None detects it.
        stderr: Write to standard error instead.
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
    """An empty table with these columns.

    Args:
        columns: Headings.
        right: Headings of the columns to align on the right, separated by spaces.
        title: Above the table.
    """
    table = _VisibleTable(
        box=SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False
    )
    for column in columns:
        table.add_column(column, justify="right" if column in right.split() else "left")
    return table
