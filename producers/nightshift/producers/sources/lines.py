"""Lines of bytes from a file, however long one of them is."""

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from nightshift.producers.sources.text_checks import check_start
from nightshift.stores.files.files import open_file
from nightshift.stores.files.packed_formats import is_gzip

__all__ = ["MAX_LINE_BYTES", "numbered_lines", "opened"]

#: A line of more bytes than this is no row: a text may have 1 MB, six-fold when escaped, and an
#: image that stands in it as base64 24 MB.
MAX_LINE_BYTES = 32 * 2**20

_HEAD_BYTES = 2**16
_BOM = b"\xef\xbb\xbf"


@contextmanager
def opened(address: str) -> Iterator[BinaryIO]:
    """A file's bytes, unpacked where they are of gzip or its name ends in `.gz`.

    Raises:
        InputError: As `check_start`.
    """
    with open_file(address) as raw:
        stream = io.BufferedReader(cast("io.RawIOBase", raw), _HEAD_BYTES)
        if is_gzip(stream.peek(2)) or address.lower().endswith(".gz"):
            stream = io.BufferedReader(
                cast("io.RawIOBase", gzip.GzipFile(fileobj=stream)), _HEAD_BYTES
            )
        check_start(address.rpartition("/")[2], stream.peek(_HEAD_BYTES))
        yield cast("BinaryIO", stream)


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
            # Also where several files were joined, each with a mark of its own.
            yield number, line.removeprefix(_BOM)
