"""Catalogues and their imports by numbers, for the command line."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, select, text

from nightshift.schema.columns_of import columns_of
from nightshift.schema.errors import NotFoundError
from nightshift.schema.tables import CatalogImport
from nightshift.stores.catalog.catalogs import catalog_id
from nightshift.stores.catalog.contents import IS_CURRENT

__all__ = ["CatalogFacts", "ImportFacts", "import_of", "imports_of", "list_catalogs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogFacts:
    """Counts of a catalogue; the three kinds are of its live items and add up to them."""

    name: str
    #: Number of its newest revision; 0 where nothing was imported.
    revision: int
    live: int
    #: Items that left the source; kept for old results, never searched.
    gone: int
    text_only: int
    image_only: int
    text_and_image: int
    #: Names of its indexes that can be searched.
    indexes: tuple[str, ...]
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportFacts:
    """One import of a source, with its counts."""

    id: int
    source: str
    read: int
    accepted: int
    failed: int
    unchanged: int
    #: Good rows of an import that was refused or interrupted.
    not_applied: int
    started_at: datetime
    #: None while it runs; for a killed import, until the next import of the catalogue.
    finished_at: datetime | None


def list_catalogs(connection: Connection, name: str | None = None) -> list[CatalogFacts]:
    """Catalogues by name.

    Args:
        connection: Postgres.
        name: Only this catalogue.

    Raises:
        NotFoundError: When there is no catalogue of that name.
    """
    only = None if name is None else catalog_id(connection, name)
    rows = connection.execute(_LIST_CATALOGS, {"only": only}).mappings()
    return [CatalogFacts(**{**row, "indexes": tuple(row["indexes"])}) for row in rows]


def imports_of(connection: Connection, name: str, *, limit: int = 10) -> list[ImportFacts]:
    """The last imports of a catalogue, newest first.

    Raises:
        NotFoundError: When there is no such catalogue.
    """
    rows = connection.execute(_imports_of_catalog(catalog_id(connection, name)).limit(limit))
    return [ImportFacts(**row) for row in rows.mappings()]


def import_of(connection: Connection, name: str, import_id: int | None) -> ImportFacts:
    """One import of a catalogue; the newest if no id is given.

    Raises:
        NotFoundError: When there is no such catalogue, or no such import of it.
    """
    imports = _imports_of_catalog(catalog_id(connection, name)).limit(1)
    if import_id is not None:
        imports = imports.where(CatalogImport.id == import_id)
    row = connection.execute(imports).mappings().one_or_none()
    if row is None:
        raise NotFoundError(
            f"catalogue {name!r} has no import {import_id or ''}; `nightshift catalog show {name}` "
            "lists them"
        )
    return ImportFacts(**row)


def _imports_of_catalog(catalog: int) -> Select[Any]:
    """Select the imports of a catalogue, newest first."""
    return (
        select(*columns_of(ImportFacts, CatalogImport))
        .where(CatalogImport.catalog_id == catalog)
        .order_by(CatalogImport.id.desc())
    )


# Counts the items of each catalogue, or of one, by state and kind, and names its ready indexes.
_LIST_CATALOGS = text(f"""
    SELECT c.name, c.created_at,
        (SELECT coalesce(max(number), 0) FROM revision WHERE catalog_id = c.id) AS revision,
        count(content.id) AS live,
        count(item.id) - count(content.id) AS gone,
        count(content.id) FILTER (WHERE content.image_hash IS NULL) AS text_only,
        count(content.id) FILTER (WHERE content.text_hash IS NULL) AS image_only,
        count(content.id) FILTER (WHERE content.text_hash IS NOT NULL
            AND content.image_hash IS NOT NULL) AS text_and_image,
        ARRAY(SELECT DISTINCT i.name FROM "index" i
            WHERE i.catalog_id = c.id AND i.state = 'ready' ORDER BY i.name) AS indexes
    FROM catalog c LEFT JOIN item ON item.catalog_id = c.id
        LEFT JOIN item_version v ON v.item_id = item.id AND {IS_CURRENT}
        LEFT JOIN content ON content.id = v.content_id
    WHERE CAST(:only AS bigint) IS NULL OR c.id = :only
    GROUP BY c.id ORDER BY c.name
""")
