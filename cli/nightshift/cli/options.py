"""Options and settings that several commands share."""

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

from nightshift.schema.settings import read_settings

__all__ = ["age_option", "data_dir_option", "json_option", "pixel_options", "read_settings"]

_Command = TypeVar("_Command", bound=Callable[..., object])


class _Folder(click.Path):
    """A folder; not an empty text, which would mean the current one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 - click's
        if value == "":
            self.fail("it is empty; is a variable unset?", param, ctx)
        return super().convert(value, param, ctx)


class _Age(click.ParamType):  # type: ignore[type-arg]
    """A duration such as `30d`."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 - click's
        if isinstance(value, timedelta):
            return value
        match = re.fullmatch(r"([0-9]{1,6})([hdw])", value)
        if match is None:
            self.fail(f"{value!r} is no number of hours, days or weeks: 12h, 30d, 4w", param, ctx)
        return int(match[1]) * _UNITS[match[2]]


_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def age_option(name: str, help: str) -> Callable[[_Command], _Command]:  # noqa: A002 - click's
    """An option that takes hours, days or weeks, such as 30d."""
    return click.option(name, type=_Age(), metavar="AGE", help=help)


data_dir_option = click.option(
    "--data-dir",
    type=_Folder(file_okay=False, path_type=Path),
    help="Home of the embedded stack.  [default: NIGHTSHIFT_DATA_DIR, else in your data home]",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object, or a list of them."
)


def pixel_options(command: _Command) -> _Command:
    """Bounds on the pixels of an image; the same ones for all who share visual tokens."""
    kind = click.IntRange(min=1)
    smallest = "Smallest image the scorer sees: smaller ones are enlarged."
    largest = "Largest image the scorer sees."
    side = "Scale each image so that its longer side has so many pixels, before these limits apply."
    command = click.option("--long-side", type=click.IntRange(1, 16384), help=side)(command)
    command = click.option("--max-pixels", type=kind, help=largest)(command)
    return click.option("--min-pixels", type=kind, help=smallest)(command)
