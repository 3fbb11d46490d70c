"""Images that imports have read, by address."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.postgresql import insert

from nightshift.schema.image_tables import KnownImage

__all__ = ["ImageReading", "find_readings", "write_readings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReading:
    """The digest of the image at an address, as an import found it."""

    address: str
    #: How its file looked, as `files.stamp_of` says.
    stamp: str
    #: Of its bytes, hexadecimal.
    sha256: str
    #: Whether it was decoded too.
    decoded: bool


def find_readings(connection: Connection, addresses: Sequence[str]) -> dict[str, ImageReading]:
    """The last readings of the images at these addresses, by address."""
    by_hash = {_hash(address): address for address in addresses}
    rows = connection.execute(
        select(
            KnownImage.address_hash, KnownImage.stamp, KnownImage.sha256, KnownImage.decoded
        ).where(KnownImage.address_hash == func.any(list(by_hash)))
    )
    return {
        (address := by_hash[bytes(row.address_hash)]): ImageReading(
            address=address,
            stamp=row.stamp,
            sha256=bytes(row.sha256).hex(),
            decoded=row.decoded,
        )
        for row in rows
    }


def write_readings(connection: Connection, readings: Iterable[ImageReading]) -> None:
    """Keep readings, each in place of the earlier one of its address."""
    # In one order, so that two imports do not wait for each other for ever.
    rows = {_hash(reading.address): reading for reading in readings}
    if not rows:
        return
    new = insert(KnownImage).values(
        [
            {
                "address_hash": address_hash,
                "stamp": reading.stamp,
                "sha256": bytes.fromhex(reading.sha256),
                "decoded": reading.decoded,
            }
            for address_hash, reading in sorted(rows.items())
        ]
    )
    connection.execute(
        new.on_conflict_do_update(
            index_elements=[KnownImage.address_hash],
            set_={
                "stamp": new.excluded.stamp,
                "sha256": new.excluded.sha256,
                "decoded": new.excluded.decoded,
                "read_at": func.now(),
            },
        )
    )


def _hash(address: str) -> bytes:
    return hashlib.sha256(address.encode("utf-8", "surrogatepass")).digest()
