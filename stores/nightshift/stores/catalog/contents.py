"""Items and queries as workers read them: parts and digests by id."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, func, select

from nightshift.schema.identity import ContentHashes
from nightshift.schema.records import ImagePart, Part, TextPart
from nightshift.schema.tables import Item, Query

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
    kind = Item if table == "item" else Query
    rows = connection.execute(
        select(
            kind.id,
            kind.external_id,
            kind.parts,
            kind.text_hash,
            kind.image_hash,
            kind.content_hash,
        ).where(kind.id == func.any(list(ids)))
    )
    return {
        row.id: StoredRecord(
            id=row.id,
            external_id=row.external_id,
            parts=parts_from_json(row.parts),
            hashes=ContentHashes(text=row.text_hash, image=row.image_hash, both=row.content_hash),
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


#: SQL condition: `item` is live and has a part that the index `i` is made of.
BELONGS_IN_INDEX = (
    "item.state = 'live' AND CASE i.parts WHEN 'text' THEN item.text_hash "
    "WHEN 'image' THEN item.image_hash ELSE item.content_hash END IS NOT NULL"
)


#: The column with the digest of what a model sees of an item or query, by parts.
HASH_COLUMN = {"text": "text_hash", "image": "image_hash", "text,image": "content_hash"}
