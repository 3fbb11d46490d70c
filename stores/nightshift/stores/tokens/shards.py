"""Shards: immutable files of many records each, on a disk or in an object store.

Postgres holds the place and digest of each record. A shard that no row names belongs to a job that
did not finish; it is never read.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import fsspec

from nightshift.schema.errors import InputError, NightshiftError, ServiceUnavailableError
from nightshift.stores.files.addresses import is_url
from nightshift.stores.files.files import open_file, to_nightshift_error

__all__ = ["Place", "Shard", "ShardWriter", "read_records", "verify_shard", "writing_shard"]

_CHUNK_BYTES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The place of a record in its shard."""

    offset: int
    n_bytes: int
    #: BLAKE2b of the record, 16 bytes.
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A shard with its size and digest."""

    #: A path or an fsspec URL.
    address: str
    n_bytes: int
    #: SHA-256 of all of it.
    sha256: bytes


class ShardWriter:
    """Takes records one by one; see `writing_shard`."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._sha256 = hashlib.sha256()
        self.n_bytes = 0

    def add(self, record: bytes) -> Place:
        """Append a record."""
        place = Place(offset=self.n_bytes, n_bytes=len(record), digest=_digest(record))
        self._stream.write(record)
        self._sha256.update(record)
        self.n_bytes += len(record)
        return place

    def shard(self, address: str) -> Shard:
        """The shard as written so far, under its address."""
        return Shard(address=address, n_bytes=self.n_bytes, sha256=self._sha256.digest())


@contextmanager
def writing_shard(address: str) -> Iterator[ShardWriter]:
    """Write a shard; it appears under its address whole, when the block ends, or not at all.

    Args:
        address: A path or an fsspec URL that nothing else is ever written to.

    Raises:
        ServiceUnavailableError: It cannot be written; the disk may be full.
    """
    remote = is_url(address)
    folder = Path(tempfile.gettempdir() if remote else address).absolute()
    folder = folder if remote else folder.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{os.getpid()}.{os.urandom(6).hex()}.part"
        try:
            with part.open("xb") as stream:
                yield ShardWriter(stream)
                stream.flush()
                # Postgres will promise that it is there; a power cut must not make that a lie.
                os.fsync(stream.fileno())
            _publish(part, address)
        finally:
            part.unlink(missing_ok=True)
    except NightshiftError:
        raise
    except OSError as error:
        raise ServiceUnavailableError(
            f"{address} cannot be written: {error}; make room, or choose another place", "files"
        ) from error


def read_records(address: str, places: Sequence[Place]) -> list[bytes | InputError]:
    """Records of one shard, in the order asked for; each that is damaged yields its error.

    Raises:
        ServiceUnavailableError: The store that holds it does not answer.
    """
    records: dict[int, bytes | InputError] = {}
    try:
        with open_file(address) as stream:
            # In the order of the file: a remote one reads ahead.
            for number in sorted(range(len(places)), key=lambda i: places[i].offset):
                stream.seek(places[number].offset)
                data = stream.read(places[number].n_bytes)
                records[number] = (
                    data
                    if _digest(data) == places[number].digest
                    else _torn(address, places[number])
                )
    except InputError as error:
        broken = InputError(
            f"shard {address}: {error}; `nightshift tokens verify` names what is lost", error.reason
        )
        return [records.get(number, broken) for number in range(len(places))]
    return [records[number] for number in range(len(places))]


def verify_shard(shard: Shard) -> None:
    """Read all of a shard.

    Raises:
        InputError: It is missing, torn or changed.
    """
    sha256, n_bytes = hashlib.sha256(), 0
    with open_file(shard.address) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            sha256.update(chunk)
            n_bytes += len(chunk)
    if n_bytes != shard.n_bytes:
        raise InputError(
            f"shard {shard.address} has {n_bytes:,} bytes where {shard.n_bytes:,} were written",
            "shard_torn",
        )
    if sha256.digest() != shard.sha256:
        raise InputError(
            f"shard {shard.address} holds other bytes than were written", "shard_corrupt"
        )


def _publish(part: Path, address: str) -> None:
    if not is_url(address):
        part.rename(address)
        return
    try:
        system, path = fsspec.core.url_to_fs(address)
        system.makedirs(path.rpartition("/")[0], exist_ok=True)
        system.put_file(str(part), path)
    except Exception as error:  # every file system of fsspec brings errors of its own
        raise to_nightshift_error(error, address, "file") from error


def _digest(record: bytes) -> bytes:
    return hashlib.blake2b(record, digest_size=16).digest()


def _torn(address: str, place: Place) -> InputError:
    return InputError(
        f"shard {address} is damaged: the {place.n_bytes:,} bytes at {place.offset:,} are not "
        "those that were written; `nightshift tokens verify` names what is lost",
        "shard_corrupt",
    )
