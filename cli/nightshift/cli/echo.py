"""Printing of text and JSON with control and invisible characters escaped."""

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import click

from nightshift.schema.display import to_json, visible

__all__ = ["echo", "echo_json"]


def echo(message: str, *, err: bool = False) -> None:
    """Print one line of text; a line feed in it is escaped too, so that no line can be forged."""
    click.echo(visible(message), err=err)


def echo_json(value: object, *, indent: int | None = 2) -> None:
    """Print a record, or a mapping or list of records, as one JSON value."""
    click.echo(to_json(value, default=_to_json, indent=indent))


def _to_json(value: object) -> Any:  # noqa: ANN401 - anything that json takes
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(value)
