"""The root command. Each command's module is imported only when that command runs."""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from nightshift.cli.error_report import report_error
from nightshift.schema.distribution import DISTRIBUTION

__all__ = ["LazyGroup", "main"]

#: Command name → "module:attribute", in the order of the help page. Only the help page imports
#: them all, because it shows the first line of each docstring.
COMMANDS = {
    "demo": "nightshift.cli.demo:demo",
    "up": "nightshift.cli.stack:up",
    "down": "nightshift.cli.stack:down",
    "status": "nightshift.cli.stack:status",
    "backup": "nightshift.cli.backup:backup",
    "restore": "nightshift.cli.backup:restore",
    "catalog": "nightshift.cli.catalog:catalog",
    "index": "nightshift.cli.index:index",
    "tokens": "nightshift.cli.tokens:tokens",
    "rerank": "nightshift.cli.rerank:rerank",
    "run": "nightshift.cli.run:run",
    "score": "nightshift.cli.score:score",
    "results": "nightshift.cli.results:results",
    "answer": "nightshift.cli.answer:answer",
    "evaluate": "nightshift.cli.evaluate:evaluate",
    "calibration": "nightshift.cli.calibration:calibration",
    "report": "nightshift.cli.report:report",
    "verify": "nightshift.cli.verify:verify",
    "disk": "nightshift.cli.disk:disk",
    "doctor": "nightshift.cli.doctor:doctor",
    "drill": "nightshift.cli.drill:drill",
    "worker": "nightshift.cli.worker:worker",
    "dispatcher": "nightshift.cli.dispatcher:dispatcher",
    "db": "nightshift.cli.db:db",
}


_WORDS = "nightshift.words"


class LazyGroup(click.Group):
    """A group that imports the module of a command when the command is used.

    Args:
        lazy: Command name → "module:attribute" of a click command.
    """

    def __init__(self, *, lazy: dict[str, str], **attributes: Any) -> None:  # noqa: ANN401 - click's
        super().__init__(**attributes)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order in which they were declared."""
        return [*self._lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self._lazy[cmd_name].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


class _Program(LazyGroup):
    """The root group: turns each exception of a command into one message and an exit code."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the command line for the message about an error."""
        ctx.meta[_WORDS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's
        """Run the command."""
        words = ctx.meta[_WORDS]
        try:
            result = super().invoke(ctx)
            # A full disk or a closed pipe must raise here, not when the interpreter exits.
            sys.stdout.flush()
        except (click.ClickException, click.exceptions.Exit, click.Abort, SystemExit):
            raise
        except BaseException as error:
            path, command = self._find_command(ctx, words)
            code = report_error(error, path, words, _option_names(command))
            raise SystemExit(code) from error
        return result

    def _find_command(self, ctx: click.Context, words: Sequence[str]) -> tuple[str, click.Command]:
        """The command, and its name without arguments, such as `nightshift run list`."""
        names: list[str] = ["nightshift"]
        innermost: click.Command = self
        group: click.Group = self
        for word in words:
            try:
                command = group.get_command(ctx, word)
            except Exception:  # noqa: BLE001 - the import itself may fail
                command = None
            if command is None:
                break
            names.append(word)
            innermost = command
            if not isinstance(command, click.Group):
                break
            group = command
        return " ".join(names), innermost


def _option_names(command: click.Command) -> dict[str, str]:
    """Parameter of a command → the option or the argument that sets it."""
    return {
        parameter.name: max(parameter.opts, key=len)
        if isinstance(parameter, click.Option)
        else parameter.human_readable_name
        for parameter in command.params
        if parameter.name
    }


@click.command(
    cls=_Program, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name=DISTRIBUTION, prog_name="nightshift")
def main() -> None:
    """Re-index and re-rank large multimodal catalogues overnight.

    \b
    Exit codes: 0 done, 1 other error, 2 wrong setting or option, 3 not found,
    4 conflict, 5 database behind, 6 service unavailable, 7 some or all input is bad, 8 model error,
    130 interrupted, 141 output pipe closed.
    """


if __name__ == "__main__":
    main()
