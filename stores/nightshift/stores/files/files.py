"""Reading files: the one door through which every catalogue, caption and image comes in."""

import errno
import hashlib
import io
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Literal, cast

import fsspec

from nightshift.schema.distribution import Extra, install_hint
from nightshift.schema.errors import (
    ConfigurationError,
    InputError,
    NightshiftError,
    ServiceUnavailableError,
)
from nightshift.stores.files.addresses import MemberAddress, is_url, without_password
from nightshift.stores.files.deadlines import Deadline, answer_s
from nightshift.stores.files.http import fetch, is_web
from nightshift.stores.files.roots import ImageRoots

__all__ = ["MAX_MEMBER_BYTES", "open_file", "read_bytes", "sha256", "translated"]

#: Prefix of the reason codes: `image_missing`, `file_unreadable`, …
Noun = Literal["file", "image"]

_BUFFER_BYTES = 2**20
#: Of an image from a web server.
_WEB_BYTES = 256 * 2**20
#: Of a member of a tar: it is held in memory.
MAX_MEMBER_BYTES = 256 * 2**20
#: Extras of ours that bring what reads a protocol.
_EXTRAS: dict[str, Extra] = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
#: Web servers are tried so often before the address counts as bad.
_WEB_ATTEMPTS = 3


@contextmanager
def open_file(
    address: str,
    *,
    noun: Noun = "file",
    roots: ImageRoots | None = None,
    deadline: Deadline | None = None,
) -> Iterator[BinaryIO]:
    """A file's bytes, for reading.

    A file is what an operator names. An image is what a catalogue names: from web servers it comes
    by way of `stores.web`, which asks whether it may.

    Args:
        address: A path, an fsspec URL, or the address of a member inside a tar.
        noun: What the file is, for the reason codes.
        roots: Of a local file: below which it must lie once it is open.
        deadline: By which an image must have come from a server, `answer_s()` from now unless
            given. Of a file, which may be large, each step has that long.

    Raises:
        InputError: `…_missing` where nothing is there, `…_unreadable` where it is no regular file
            or may not be read, `…_unreachable` where a web server does not deliver it: in a
            catalogue of web pages one dead host is that item's fault, not an outage; as `web.fetch`
            where an image lies on a web server; `image_not_allowed` outside the roots.
        ServiceUnavailableError: Where an object store or another file service does not answer.
        ConfigurationError: Where the package for the URL's protocol is not installed.
    """
    member = MemberAddress.parse(address)
    place = member.archive if member else address
    if noun == "image" and is_web(place):
        span = (member.offset, member.size) if member else None
        yield io.BytesIO(fetch(place, max_bytes=_WEB_BYTES, span=span, deadline=deadline))
    elif member is not None:
        with open_file(member.archive, noun=noun, roots=roots, deadline=deadline) as archive:
            yield io.BytesIO(_member_bytes(archive, member, noun))
    elif is_url(address):
        if noun == "image" and deadline is None:
            deadline = Deadline(answer_s())
        remote = _Remote(address, noun, deadline)
        with io.BufferedReader(remote, _BUFFER_BYTES) as stream:
            yield stream
    else:
        with _open_local(address, noun, roots) as stream:
            yield stream


def read_bytes(
    address: str, *, max_bytes: int, noun: Noun = "file", roots: ImageRoots | None = None
) -> bytes:
    """A whole file; an image comes within one time limit, repeated attempts included.

    Args:
        address: As for `open_file`.
        max_bytes: What is longer is refused.
        noun: As for `open_file`.
        roots: As for `open_file`.

    Raises:
        InputError: As `open_file`; `…_too_large` beyond `max_bytes`.
    """
    deadline = Deadline(answer_s()) if noun == "image" else None
    for attempt in range(1, _WEB_ATTEMPTS + 1):
        try:
            with open_file(address, noun=noun, roots=roots, deadline=deadline) as stream:
                data = stream.read(max_bytes + 1)
        except InputError as error:
            if attempt == _WEB_ATTEMPTS or not error.reason.endswith("_unreachable"):
                raise
            pause_s = 0.5 * attempt
            if deadline is not None and deadline.passed(pause_s):
                raise
            time.sleep(pause_s)
        else:
            break
    if len(data) > max_bytes:
        raise InputError(
            f"{address} has more than {max_bytes / 2**20:.0f} MiB; make it smaller",
            f"{noun}_too_large",
        )
    return data


def _member_bytes(archive: BinaryIO, member: MemberAddress, noun: Noun) -> bytes:
    if member.size > MAX_MEMBER_BYTES:
        raise InputError(
            f"{member.name} in {without_password(member.archive)} has {member.size:,} bytes; "
            "make it smaller",
            f"{noun}_too_large",
        )
    try:
        archive.seek(member.offset)
        data = archive.read(member.size)
    except (OSError, OverflowError, ValueError):  # no file is so long
        data = b""
    if len(data) < member.size:
        raise InputError(
            f"{without_password(member.archive)} ends before {member.name}; import it again",
            f"{noun}_missing",
        )
    return data


def sha256(address: str, *, noun: Noun = "file", roots: ImageRoots | None = None) -> str:
    """Digest of a file's bytes, hex, whatever its size; takes and raises as `open_file`."""
    with open_file(address, noun=noun, roots=roots) as stream:
        return hashlib.file_digest(cast("Any", stream), "sha256").hexdigest()


def _open_local(address: str, noun: Noun, roots: ImageRoots | None) -> BinaryIO:
    try:
        # By its path alone at first: to open a pipe or a device may wait or do something.
        descriptor = os.open(address, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                # Reading a pipe or a device could wait for ever.
                raise InputError(
                    f"{address} is not a regular file; name a file", f"{noun}_unreadable"
                )
            if roots is not None:
                roots.check_open(descriptor, address)
            # The very file that was judged, whatever its name leads to by now.
            return open(f"/proc/self/fd/{descriptor}", "rb")  # noqa: PTH123 - the caller closes
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        if isinstance(error, OSError):
            error.filename = address
        raise translated(error, address, noun) from error


class _Remote(io.RawIOBase):
    """A remote file whose errors are ours, whichever library talks to the server.

    Args:
        address: Its URL.
        noun: What it is.
        deadline: By which it must have come; None gives each step `answer_s()`.
    """

    def __init__(self, address: str, noun: Noun, deadline: Deadline | None) -> None:
        self._address = address
        self._noun: Noun = noun
        self._deadline = deadline
        self._stream: Any = self._try(lambda: fsspec.open(address, "rb").open())

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._stream.seekable())

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - any writable buffer
        n_bytes = min(len(buffer), _BUFFER_BYTES)
        data: bytes = self._try(lambda: self._stream.read(n_bytes))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._stream.seek(offset, whence))

    def tell(self) -> int:
        return int(self._stream.tell())

    def close(self) -> None:
        if not self.closed and hasattr(self, "_stream"):
            self._stream.close()
        super().close()

    def _try(self, action: Any) -> Any:  # noqa: ANN401 - fsspec is untyped
        try:
            deadline = self._deadline or Deadline(answer_s())
            # A chain may unpack or copy a large file before it gives the first byte.
            return action() if "::" in self._address else deadline.call(action)
        except Exception as error:  # every file system of fsspec brings errors of its own
            raise translated(error, self._address, self._noun) from error


def translated(error: Exception, address: str, noun: Noun) -> NightshiftError:
    """Our error for what a file system raised, as `open_file` says."""
    web = address.startswith(("http://", "https://"))
    cause = error.__cause__
    address = without_password(address)
    # fsspec reports every failure of a web server as a missing file.
    if web and isinstance(cause, Exception) and getattr(cause, "status", None) not in {404, 410}:
        error = cause
    why = without_password(str(error)) or type(error).__name__
    match error:
        case FileNotFoundError() | NotADirectoryError():
            remedy = "check the path, and that it is mounted here"
            return InputError(f"there is no {address}; {remedy}", f"{noun}_missing")
        case (
            PermissionError()
            | IsADirectoryError()
            | ValueError()
            | OSError(errno=errno.ENAMETOOLONG | errno.ELOOP)
        ):
            return InputError(
                f"{address} cannot be read: {why}; check the address and the access rights",
                f"{noun}_unreadable",
            )
        case ImportError():
            extra = _EXTRAS.get(address.partition(":")[0])
            remedy = f"; {install_hint(extra)}" if extra else ""
            return ConfigurationError(f"{address} cannot be opened: {why}{remedy}")
    told = f"{address} cannot be fetched: {why}"
    if web:
        return InputError(f"{told}; check that the server delivers it", f"{noun}_unreachable")
    return ServiceUnavailableError(f"{told}; check the network and the store's settings", "files")
