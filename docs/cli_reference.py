"""Writes docs/cli.md from the help that the program itself prints; `make docs` runs it."""

from collections.abc import Iterator
from pathlib import Path

import click

from nightshift.cli.main import main

TARGET = Path(__file__).with_name("cli.md")
_WIDTH = 96
_HEAD = """\
# The command line

Generated from `--help` by `make docs`; a test compares it with the program. Every command that
needs a service finds it by its setting or in the running embedded stack
([settings](operate.md#settings)).
"""


def reference() -> str:
    """The whole page."""
    return _HEAD + "".join(_sections(main, "nightshift", None))


def _sections(command: click.Command, path: str, parent: click.Context | None) -> Iterator[str]:
    name = path.rpartition(" ")[2]
    context = click.Context(
        command,
        info_name=name,
        parent=parent,
        terminal_width=_WIDTH,
        **command.context_settings,
    )
    lines = [line.rstrip() for line in command.get_help(context).splitlines()]
    yield "\n".join(["", f"## {path}", "", "```text", *lines, "```", ""])
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            subcommand = command.get_command(context, inner)
            assert subcommand is not None
            yield from _sections(subcommand, f"{path} {inner}", context)


if __name__ == "__main__":
    TARGET.write_text(reference())
