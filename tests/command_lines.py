"""Checks whether a `nightshift …` line that is written somewhere would be understood."""

from collections.abc import Sequence

import click

from nightshift.cli.main import main


def require_understood(words: Sequence[str]) -> None:
    """Parse a command line as the program does, without running it.

    Raises:
        click.ClickException: For an unknown command, option or value.
    """
    program, *rest = words
    assert program == "nightshift", words
    _parse(main, program, rest, None)


def _parse(
    command: click.Command, name: str | None, words: list[str], parent: click.Context | None
) -> None:
    try:
        context = command.make_context(name, words, parent=parent)
    except click.exceptions.Exit:
        return  # --help and --version end the parsing
    except click.BadParameter as error:
        if error.param is not None and isinstance(error.param.type, click.Path | click.File):
            return  # the file of an example need not exist
        raise
    rest = [*context._protected_args, *context.args]
    if isinstance(command, click.Group) and rest:
        name, subcommand, rest = command.resolve_command(context, rest)
        assert subcommand is not None
        _parse(subcommand, name, rest, context)
