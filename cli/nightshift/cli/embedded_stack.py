"""The embedded stack as the commands use it: its programs are commands of this command line."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nightshift.stack import Stack

__all__ = ["open_stack"]


def open_stack(data_dir: Path) -> "Stack":
    """The stack of a data directory, with `nightshift dispatcher` and `nightshift worker`."""
    from nightshift.stack import Stack, StackCommands

    nightshift = (sys.executable, "-P", "-m", "nightshift.cli.main")
    commands = StackCommands(dispatcher=(*nightshift, "dispatcher"), worker=(*nightshift, "worker"))
    return Stack(data_dir, commands)
