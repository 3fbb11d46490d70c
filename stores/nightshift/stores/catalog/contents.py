"""Items and queries as workers read them: parts and digests by id."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, text

from nightshift.schema.identity import ContentHashes
from nightshift.schema.records import ImagePart, Part, TextPart

__all__ = [
    "BELONGS_IN_INDEX",
    "HASH_COLUMN",
    "StoredRecord",
    "load_records",
    "parts_from_json",
    "parts_to_json",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecord:
    """An item or a query with its row id and digests."""

    id: int
    external_id: str
    parts: tuple[Part, ...]
    hashes: ContentHashes


def load_records(
    connection: Connection, table: Literal["item", "query"], ids: Sequence[int]
) -> dict[int, StoredRecord]:
    """Records by row id; ids that are gone are left out."""
    rows = connection.execute(
        text(
            "SELECT id, external_id, parts, text_hash, image_hash, content_hash "
            f"FROM {table} WHERE id = ANY(:ids)"
        ),
        {"ids": list(ids)},
    )
    return {
        int(row.id): StoredRecord(
            id=int(row.id),
            external_id=row.external_id,
            parts=parts_from_json(row.parts),
            hashes=ContentHashes(
                text=_bytes(row.text_hash),
                image=_bytes(row.image_hash),
                both=bytes(row.content_hash),
            ),
        )
        for row in rows
    }


def parts_to_json(parts: tuple[Part, ...]) -> list[dict[str, Any]]:
    """Parts as stored in the `parts` column."""
    return [
        {"kind": "text", "text": part.text}
        if isinstance(part, TextPart)
        else {"kind": "image", "uri": part.uri, "sha256": part.sha256}
        for part in parts
    ]


def parts_from_json(stored: list[dict[str, Any]]) -> tuple[Part, ...]:
    """The inverse of `parts_to_json`."""
    return tuple(
        TextPart(text=part["text"])
        if part["kind"] == "text"
        else ImagePart(uri=part["uri"], sha256=part.get("sha256", ""))
        for part in stored
    )


def _bytes(value: Any) -> bytes | None:  # noqa: ANN401 - the driver hands out memoryviews
    return None if value is None else bytes(value)


#: Whether an `item` is live and has a part that the index `i` is made of.
BELONGS_IN_INDEX = (
    "item.state = 'live' AND CASE i.parts WHEN 'text' THEN item.text_hash "
    "WHEN 'image' THEN item.image_hash ELSE item.content_hash END IS NOT NULL"
)


#: By parts: which hash of an item or query names what a model sees of it.
HASH_COLUMN = {"text": "text_hash", "image": "image_hash", "text,image": "content_hash"}
