"""Sizes of folders on this machine."""

import os
from pathlib import Path

__all__ = ["folder_bytes"]

_BLOCK_BYTES = 512


def folder_bytes(folder: Path) -> int | None:
    """Bytes that the files below a folder take on disk; None where it cannot be read.

    Files that end while they are counted are left out.
    """
    if not os.access(folder, os.R_OK | os.X_OK):
        return None
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(parent, name).lstat().st_blocks * _BLOCK_BYTES
            except OSError:
                continue
    return total
