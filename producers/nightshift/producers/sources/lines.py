"""Lines of bytes from a file, however long one of them is."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from nightshift.stores.files import open_file

__all__ = ["MAX_LINE_BYTES", "numbered_lines", "opened"]

#: A line of more bytes than this is no row: a text may have 1 MB, six-fold when escaped.
MAX_LINE_BYTES = 64 * 2**20

_BOM = b"\xef\xbb\xbf"


@contextmanager
def opened(address: str) -> Iterator[BinaryIO]:
    """A file's bytes, unpacked where its name ends in `.gz`."""
    with open_file(address) as raw:
        yield cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if address.endswith(".gz") else raw


def numbered_lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """(number from 1, line with its ending) pairs; None stands for a line that is too long."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            while line and not line.endswith(b"\n"):
                line = file.readline(MAX_LINE_BYTES)
            yield number, None
        else:
            yield number, line.removeprefix(_BOM) if number == 1 else line
