"""Items of a catalogue, written the way an import writes them."""

import json

from sqlalchemy import Connection, text

from nightshift.schema.identity import content_hashes
from nightshift.schema.records import Part, TextPart
from nightshift.stores.catalog.contents import content_digest, parts_to_json

#: Items of the newest revision with their contents, as a subquery: `FROM {ITEMS} AS item`.
ITEMS = """(
    SELECT item.*, v.content_id, v.metadata, content.parts, content.text_hash, content.image_hash,
        content.content_hash
    FROM item JOIN item_version v ON v.item_id = item.id AND v.last_revision = 2147483647
    JOIN content ON content.id = v.content_id)"""


def add_item(
    connection: Connection, catalog_id: int, external_id: str, *parts: Part, first: int = 1
) -> int:
    """Add an item with these parts to a catalogue, from its revision `first` on; its row id."""
    connection.execute(
        text(
            "INSERT INTO revision (catalog_id, number, items, added, changed, removed) "
            "VALUES (:catalog, :first, 0, 0, 0, 0) ON CONFLICT DO NOTHING"
        ),
        {"catalog": catalog_id, "first": first},
    )
    item_id = int(
        connection.execute(
            text(
                "INSERT INTO item (catalog_id, external_id) VALUES (:catalog, :name) RETURNING id"
            ),
            {"catalog": catalog_id, "name": external_id},
        ).scalar_one()
    )
    connection.execute(
        text(
            "INSERT INTO item_version (item_id, first_revision, content_id) "
            "VALUES (:item, :first, :content)"
        ),
        {"item": item_id, "first": first, "content": add_content(connection, *parts)},
    )
    return item_id


def change_item(connection: Connection, external_id: str, *parts: Part) -> int:
    """Give an item other parts in a new revision of its catalogue; the number of the revision."""
    revision = end_item(connection, external_id)
    connection.execute(
        text(
            "INSERT INTO item_version (item_id, first_revision, content_id) "
            "SELECT id, :revision, :content FROM item WHERE external_id = :name"
        ),
        {
            "revision": revision,
            "content": add_content(connection, *parts),
            "name": external_id,
        },
    )
    return revision


def end_item(connection: Connection, external_id: str) -> int:
    """Let an item be gone in a new revision of its catalogue; the number of the revision."""
    revision = connection.execute(
        text(
            "INSERT INTO revision (catalog_id, number, items, added, changed, removed) "
            "SELECT catalog_id, max(number) + 1, 0, 0, 0, 0 FROM revision JOIN item USING "
            "(catalog_id) WHERE external_id = :name GROUP BY catalog_id RETURNING number"
        ),
        {"name": external_id},
    ).scalar_one()
    connection.execute(
        text(
            "UPDATE item_version SET last_revision = :revision - 1 FROM item "
            "WHERE item.id = item_id AND external_id = :name AND last_revision = 2147483647"
        ),
        {"revision": revision, "name": external_id},
    )
    return int(revision)


def add_content(connection: Connection, *parts: Part) -> int:
    """Store parts as a content; its row id."""
    stored = parts_to_json(parts or (TextPart(text="a thing"),))
    hashes = content_hashes(parts or (TextPart(text="a thing"),))
    return int(
        connection.execute(
            text(
                "INSERT INTO content (digest, parts, text_hash, image_hash, content_hash) "
                "VALUES (:digest, CAST(:parts AS jsonb), :text, :image, :both) "
                "ON CONFLICT (digest) DO UPDATE SET digest = excluded.digest RETURNING id"
            ),
            {
                "digest": content_digest(stored),
                "parts": json.dumps(stored),
                "text": hashes.text,
                "image": hashes.image,
                "both": hashes.both,
            },
        ).scalar_one()
    )


def replace_parts(connection: Connection, external_id: str, *parts: Part) -> None:
    """Let an item have had these parts from the beginning."""
    connection.execute(
        text(
            "UPDATE item_version SET content_id = :content FROM item "
            "WHERE item.id = item_id AND external_id = :name"
        ),
        {"content": add_content(connection, *parts), "name": external_id},
    )


def set_hash(connection: Connection, external_id: str, **hashes: bytes) -> None:
    """Let the content of an item have these hashes."""
    columns = ", ".join(f"{name} = :{name}" for name in hashes)
    connection.execute(
        text(
            f"UPDATE content SET {columns} FROM item_version v JOIN item ON item.id = v.item_id "
            "WHERE content.id = v.content_id AND external_id = :external_id"
        ),
        {"external_id": external_id, **hashes},
    )
