"""Items and queries as workers read them: parts and digests by id."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, select, text

from nightshift.schema.identity import ContentHashes
from nightshift.schema.item_tables import CURRENT
from nightshift.schema.query_tables import Query
from nightshift.schema.records import ImagePart, Part, TextPart

__all__ = [
    "HASH_COLUMN",
    "IN_REVISION",
    "IN_REVISION_OF_RUN",
    "IS_CURRENT",
    "ITEM_CONTENTS",
    "SEEN_BY_INDEX",
    "StoredRecord",
    "content_digest",
    "load_items",
    "load_queries",
    "parts_from_json",
    "parts_text",
    "parts_to_json",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecord:
    """An item or a query with its row id and digests."""

    id: int
    external_id: str
    parts: tuple[Part, ...]
    hashes: ContentHashes


def load_items(
    connection: Connection, ids: Sequence[int], *, revision: int
) -> dict[int, StoredRecord]:
    """Items by row id, as they are in a revision; ids that are not live in it are left out."""
    rows = connection.execute(_LOAD_ITEMS, {"ids": list(ids), "revision": revision})
    return {row.id: _record(row) for row in rows}


def load_queries(connection: Connection, ids: Sequence[int]) -> dict[int, StoredRecord]:
    """Queries by row id; ids that are gone are left out."""
    rows = connection.execute(
        select(
            Query.id,
            Query.external_id,
            Query.parts,
            Query.text_hash,
            Query.image_hash,
            Query.content_hash,
        ).where(Query.id == func.any(list(ids)))
    )
    return {row.id: _record(row) for row in rows}


def content_digest(stored: list[dict[str, Any]]) -> bytes:
    """SHA-256 (32 bytes) of parts as `parts_to_json` has them, addresses included.

    Postgres computes the same by `sha256(convert_to(parts::text, 'UTF8'))`.
    """
    return hashlib.sha256(parts_text(stored).encode()).digest()


def parts_text(stored: list[dict[str, Any]]) -> str:
    """Parts as `parts_to_json` has them as text: the text that Postgres makes of them."""
    return json.dumps(stored, ensure_ascii=False)


def parts_to_json(parts: tuple[Part, ...]) -> list[dict[str, Any]]:
    """Parts as stored in the `parts` column; keys in the order of Postgres, by length and name."""
    return [
        {"kind": "text", "text": part.text}
        if isinstance(part, TextPart)
        else {"uri": part.uri, "kind": "image", "sha256": part.sha256}
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


def _record(row: Row[Any]) -> StoredRecord:
    return StoredRecord(
        id=row.id,
        external_id=row.external_id,
        parts=parts_from_json(row.parts),
        hashes=ContentHashes(
            text=_bytes(row.text_hash), image=_bytes(row.image_hash), both=bytes(row.content_hash)
        ),
    )


def _bytes(value: bytes | memoryview | None) -> bytes | None:
    # Statements in SQL return views.
    return None if value is None else bytes(value)


#: SQL: every item with its versions, `v`, and their contents.
ITEM_CONTENTS = (
    "item JOIN item_version v ON v.item_id = item.id JOIN content ON content.id = v.content_id"
)

#: SQL condition beside `ITEM_CONTENTS`: the version is that of revision `:revision`.
IN_REVISION = ":revision BETWEEN v.first_revision AND v.last_revision"

#: The same for the revision that a `run` reads.
IN_REVISION_OF_RUN = "run.revision BETWEEN v.first_revision AND v.last_revision"

#: The same for the newest revision of the catalogue.
IS_CURRENT = f"v.last_revision = {CURRENT}"

#: SQL: the digest of the parts of `content` that the index `i` is made of; null without any.
SEEN_BY_INDEX = (
    "CASE i.parts WHEN 'text' THEN content.text_hash WHEN 'image' THEN content.image_hash "
    "ELSE content.content_hash END"
)

# Reads items by id as they are in a revision.
_LOAD_ITEMS = text(f"""
    SELECT item.id, item.external_id, content.parts, content.text_hash, content.image_hash,
        content.content_hash
    FROM {ITEM_CONTENTS} WHERE item.id = ANY(:ids) AND {IN_REVISION}
""")

#: The column with the digest of what a model sees of an item or query, by parts.
HASH_COLUMN = {"text": "text_hash", "image": "image_hash", "text,image": "content_hash"}
