"""Nightshift as pip knows it: its name, its version, and how an extra of it is installed."""

from importlib.metadata import version
from typing import Literal

__all__ = ["DISTRIBUTION", "Extra", "install_hint", "installed_version"]

#: On package indexes `nightshift` is another program; the module and the command are called so.
DISTRIBUTION = "nightshift-index"

#: Extras of pyproject.toml that a message may have to name.
Extra = Literal["s3", "gcs", "quantised", "awq", "worker"]


def installed_version() -> str:
    """The version of the program that runs."""
    return version(DISTRIBUTION)


def install_hint(extra: Extra) -> str:
    """What installs the packages of an extra, as part of a sentence.

    By the folder of the source, not by a name: an index gives whatever has that name there.

    Args:
        extra: As `pyproject.toml` names it.
    """
    return f"run `pip install '.[{extra}]'` in the folder of Nightshift's source"
