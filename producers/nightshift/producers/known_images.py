"""Images that need not be read again, because an earlier import read them as they are now."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from sqlalchemy import Connection

from nightshift.producers.sources.fields import Draft
from nightshift.producers.sources.rows import EmbeddedImage
from nightshift.schema.records import ImagePart
from nightshift.stores.catalog.known_images import ImageReading, find_readings, write_readings

__all__ = ["FoundImage", "KnownImages", "Readings"]

#: The stamp of an image that is its bytes, with its digest for an address: it never changes.
_BYTES = "bytes"


Readings = Mapping[str, ImageReading]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundImage:
    """An image before it is read: its address and the stamp of its file.

    Without a stamp, nobody can tell later whether it has changed.
    """

    address: str
    stamp: str

    def digest_in(self, readings: Readings, *, decoded: bool) -> str | None:
        """Its digest, if it is as an import read it; None where it must be read.

        Args:
            readings: From `KnownImages.look_up`.
            decoded: Whether a reading counts only if the image was decoded too.
        """
        reading = readings.get(self.address)
        if reading is None or not self.stamp or reading.stamp != self.stamp:
            return None
        return reading.sha256 if reading.decoded or not decoded else None

    @classmethod
    def of_bytes(cls, data: bytes) -> "FoundImage":
        """An image that came inside its row, without an address."""
        return cls(address=f"sha256:{hashlib.sha256(data).hexdigest()}", stamp=_BYTES)


@dataclass(slots=True, kw_only=True)
class KnownImages:
    """Readings of earlier imports, and those of this one that are not written yet.

    `look_up` and `write` are called by one thread, `add` by any.

    Args:
        connect: Gives a connection inside a transaction.
        trusted: False reads every image again, and replaces what was known.
    """

    connect: Callable[[], AbstractContextManager[Connection]]
    trusted: bool = True
    _new: list[ImageReading] = field(default_factory=list)

    def look_up(self, drafts: Iterable[Draft]) -> Readings:
        """Find the readings of the images of rows that are about to be checked, by address."""
        # Before addresses are listed: of an image without one the bytes are hashed for it.
        if not self.trusted:
            return {}
        addresses = [address for draft in drafts for address in _addresses(draft)]
        if not addresses:
            return {}
        with self.connect() as connection:
            return find_readings(connection, addresses)

    def add(self, image: FoundImage, digest: str, *, decoded: bool) -> None:
        """Remember an image that was read."""
        if image.stamp:
            self._new.append(
                ImageReading(
                    address=image.address, stamp=image.stamp, sha256=digest, decoded=decoded
                )
            )

    def write(self, connection: Connection) -> None:
        """Write the readings that are not written yet."""
        # What a thread adds meanwhile stays for the next time.
        n_new = len(self._new)
        write_readings(connection, self._new[:n_new])
        del self._new[:n_new]


def _addresses(draft: Draft) -> Iterable[str]:
    for part in draft.parts:
        if isinstance(part, ImagePart):
            yield part.uri
        elif isinstance(part, EmbeddedImage):
            yield part.address or FoundImage.of_bytes(part.data).address
