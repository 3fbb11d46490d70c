"""The help of every command shows how it is called, and scripts can read what it prints."""

import shlex
from collections.abc import Iterator

import click
import pytest

from nightshift.cli.main import main
from tests.command_lines import require_understood

#: They run until stopped, do one thing that the exit code tells of, or write a file.
_WITHOUT_JSON = {"run cancel", "run pause", "run resume", "worker", "dispatcher", "db upgrade",
                 "report"}  # fmt: skip


def _commands(
    command: click.Command, path: str = "", parent: click.Context | None = None
) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(command, info_name=path, parent=parent)
    if not isinstance(command, click.Group):
        yield path, command
        return
    if command.invoke_without_command:
        yield path, command
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        assert inner is not None
        yield from _commands(inner, f"{path} {name}".strip(), context)


COMMANDS = dict(_commands(main))


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_has_examples_that_the_program_understands(path):
    _, _, examples = (COMMANDS[path].help or "").partition("Example")
    lines = [line.strip().partition(" | ")[0] for line in examples.splitlines()]
    commands = [line for line in lines if line.startswith("nightshift ")]

    assert commands
    for line in commands:
        assert line.startswith(f"nightshift {path}")
        require_understood(shlex.split(line))


def test_what_scripts_read_can_be_had_as_json():
    without = {
        path
        for path, command in COMMANDS.items()
        if not {"as_json", "file_format"} & {parameter.name for parameter in command.params}
    }

    assert without == _WITHOUT_JSON
