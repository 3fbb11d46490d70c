"""Read files: every catalogue, caption and image is opened by this module."""

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
from nightshift.stores.files.deadlines import Deadline, fetch_timeout_s
from nightshift.stores.files.http import fetch, is_web
from nightshift.stores.files.roots import ImageRoots

__all__ = [
    "MAX_MEMBER_BYTES",
    "open_file",
    "read_bytes",
    "sha256",
    "stamp_of",
    "stamp_of_status",
    "to_nightshift_error",
]

#: Prefix of the reason codes: `image_missing`, `file_unreadable`, …
Noun = Literal["file", "image"]

_BUFFER_BYTES = 2**20
#: The largest image from a web server.
_MAX_WEB_BYTES = 256 * 2**20
#: The largest member of a tar: it is held in memory.
MAX_MEMBER_BYTES = 256 * 2**20
#: Protocol → our extra that installs the package which reads it.
_EXTRAS: dict[str, Extra] = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
#: Two changes of a file within this time may leave it the same time of change.
_SETTLED_NS = 2_000_000_000
#: Attempts at a web server before the address counts as unreachable.
_WEB_ATTEMPTS = 3


@contextmanager
def open_file(
    address: str,
    *,
    noun: Noun = "file",
    roots: ImageRoots | None = None,
    deadline: Deadline | None = None,
) -> Iterator[BinaryIO]:
    """Open a file for reading.

    A *file* is named by an operator. An *image* is named by a catalogue, so it is fetched from web
    servers by `http.fetch`, which checks that the address is allowed.

    Args:
        address: A path, an fsspec URL, or the address of a member inside a tar.
        noun: `file` or `image`, the prefix of the reason codes.
        roots: Folders below which a local file must lie.
        deadline: The time limit for an image from a server; default `fetch_timeout_s()`. Files may
            be large: each step of reading one has that time.

    Raises:
        InputError: `…_missing` when there is no such file; `…_unreadable` when it is not a regular
            file or may not be read; `…_unreachable` when a web server does not deliver it, which
            fails the item and is not an outage; `image_not_allowed` outside the roots; also the
            reasons of `http.fetch`.
        ServiceUnavailableError: When an object store or another file service does not answer.
        ConfigurationError: When the package for the URL's protocol is not installed.
    """
    member = MemberAddress.parse(address)
    target = member.archive if member else address
    if noun == "image" and is_web(target):
        span = (member.offset, member.size) if member else None
        yield io.BytesIO(fetch(target, max_bytes=_MAX_WEB_BYTES, span=span, deadline=deadline))
    elif member is not None:
        with open_file(member.archive, noun=noun, roots=roots, deadline=deadline) as archive:
            yield io.BytesIO(_member_bytes(archive, member, noun))
    elif is_url(address):
        if noun == "image" and deadline is None:
            deadline = Deadline(fetch_timeout_s())
        remote = _RemoteFile(address, noun, deadline)
        with io.BufferedReader(remote, _BUFFER_BYTES) as stream:
            yield stream
    else:
        with _open_local(address, noun, roots) as stream:
            yield stream


def read_bytes(
    address: str, *, max_bytes: int, noun: Noun = "file", roots: ImageRoots | None = None
) -> bytes:
    """Read a file completely; an image within one time limit, repeated attempts included.

    Args:
        address: As for `open_file`.
        max_bytes: A longer file is refused.
        noun: As for `open_file`.
        roots: As for `open_file`.

    Raises:
        InputError: As `open_file`; `…_too_large` beyond `max_bytes`.
    """
    deadline = Deadline(fetch_timeout_s()) if noun == "image" else None
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
    except (OSError, OverflowError, ValueError):  # beyond the largest file
        data = b""
    if len(data) < member.size:
        raise InputError(
            f"{without_password(member.archive)} ends before {member.name}; import it again",
            f"{noun}_missing",
        )
    return data


def sha256(address: str, *, noun: Noun = "file", roots: ImageRoots | None = None) -> str:
    """SHA-256 of a file of any size, hexadecimal; arguments and errors as `open_file`."""
    with open_file(address, noun=noun, roots=roots) as stream:
        return hashlib.file_digest(cast("Any", stream), "sha256").hexdigest()


def stamp_of(address: str, *, noun: Noun = "file", roots: ImageRoots | None = None) -> str:
    """The stamp of the local file that an address leads to, which is not read.

    Args:
        address: A path, or the address of a member inside a local tar: the stamp is the tar's.
        noun: As for `open_file`.
        roots: As for `open_file`.

    Returns:
        Size and time of change; empty where they cannot tell a later change: the file is remote, or
        changed less than two seconds ago.

    Raises:
        InputError: As `open_file`.
    """
    member = MemberAddress.parse(address)
    path = member.archive if member else address
    if is_url(path):
        return ""
    with _checked_path(path, noun, roots) as descriptor:
        return stamp_of_status(os.fstat(descriptor))


def stamp_of_status(status: os.stat_result) -> str:
    """The stamp of a file, as `stamp_of`."""
    if time.time_ns() - status.st_mtime_ns < _SETTLED_NS:
        return ""
    return f"{status.st_size}:{status.st_mtime_ns}"


def _open_local(address: str, noun: Noun, roots: ImageRoots | None) -> BinaryIO:
    with _checked_path(address, noun, roots) as descriptor:
        # This opens the file that was checked, even if its path now leads to another one.
        return open(f"/proc/self/fd/{descriptor}", "rb")  # noqa: PTH123 - the caller closes


@contextmanager
def _checked_path(address: str, noun: Noun, roots: ImageRoots | None) -> Iterator[int]:
    """A descriptor of a regular file below the roots, opened for its path only."""
    try:
        # Opening a pipe or a device for reading may block or have effects.
        descriptor = os.open(address, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                # Reading a pipe or a device could block for ever.
                raise InputError(
                    f"{address} is not a regular file; name a file", f"{noun}_unreadable"
                )
            if roots is not None:
                roots.check_open(descriptor, address)
            yield descriptor
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        if isinstance(error, OSError):
            error.filename = address
        raise to_nightshift_error(error, address, noun) from error


class _RemoteFile(io.RawIOBase):
    """A remote file that raises our errors, whichever library reads it.

    Args:
        address: Its URL.
        noun: As for `open_file`.
        deadline: The time limit of all steps; None gives each step `fetch_timeout_s()`.
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
            deadline = self._deadline or Deadline(fetch_timeout_s())
            # A chained URL may unpack or copy a large file before the first byte.
            return action() if "::" in self._address else deadline.call(action)
        except Exception as error:  # every file system of fsspec raises errors of its own
            raise to_nightshift_error(error, self._address, self._noun) from error


def to_nightshift_error(error: Exception, address: str, noun: Noun) -> NightshiftError:
    """Turn an error of a file system into ours, as `open_file` documents."""
    web = address.startswith(("http://", "https://"))
    cause = error.__cause__
    address = without_password(address)
    # fsspec reports every failure of a web server as a missing file.
    if web and isinstance(cause, Exception) and getattr(cause, "status", None) not in {404, 410}:
        error = cause
    reason = without_password(str(error)) or type(error).__name__
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
                f"{address} cannot be read: {reason}; check the address and the access rights",
                f"{noun}_unreadable",
            )
        case ImportError():
            extra = _EXTRAS.get(address.partition(":")[0])
            remedy = f"; {install_hint(extra)}" if extra else ""
            return ConfigurationError(f"{address} cannot be opened: {reason}{remedy}")
    message = f"{address} cannot be fetched: {reason}"
    if web:
        return InputError(f"{message}; check that the server delivers it", f"{noun}_unreachable")
    return ServiceUnavailableError(
        f"{message}; check the network and the store's settings", "files"
    )
