"""What catalogues hold and what their imports did, for people."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from nightshift.schema.errors import NotFoundError
from nightshift.stores.catalog.catalogs import catalog_id

__all__ = ["CatalogFacts", "ImportFacts", "import_of", "imports_of", "list_catalogs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogFacts:
    """A catalogue by numbers; the three kinds are of its live items and sum up to them."""

    name: str
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
    """One reading of a source."""

    id: int
    source: str
    read: int
    accepted: int
    failed: int
    unchanged: int
    #: Good rows of an import that was refused or interrupted.
    not_applied: int
    started_at: datetime
    #: None while it runs; of one that was killed, until the next import of the catalogue.
    finished_at: datetime | None


def list_catalogs(connection: Connection, name: str | None = None) -> list[CatalogFacts]:
    """Catalogues by name.

    Args:
        connection: Any.
        name: Only this one.

    Raises:
        NotFoundError: Where that one does not exist.
    """
    only = None if name is None else catalog_id(connection, name)
    rows = connection.execute(
        text(
            """
            SELECT c.name, c.created_at,
                count(i.id) FILTER (WHERE i.state = 'live') AS live,
                count(i.id) FILTER (WHERE i.state = 'gone') AS gone,
                count(i.id) FILTER (WHERE i.state = 'live' AND i.image_hash IS NULL) AS text_only,
                count(i.id) FILTER (WHERE i.state = 'live' AND i.text_hash IS NULL) AS image_only,
                count(i.id) FILTER (WHERE i.state = 'live' AND i.text_hash IS NOT NULL
                    AND i.image_hash IS NOT NULL) AS text_and_image,
                ARRAY(SELECT DISTINCT v.name FROM "index" v
                    WHERE v.catalog_id = c.id AND v.state = 'ready' ORDER BY v.name) AS indexes
            FROM catalog c LEFT JOIN item i ON i.catalog_id = c.id
            WHERE CAST(:only AS bigint) IS NULL OR c.id = :only
            GROUP BY c.id ORDER BY c.name
            """
        ),
        {"only": only},
    ).mappings()
    return [CatalogFacts(**{**row, "indexes": tuple(row["indexes"])}) for row in rows]


def imports_of(connection: Connection, name: str, *, limit: int = 10) -> list[ImportFacts]:
    """The last imports of a catalogue, newest first.

    Raises:
        NotFoundError: Where there is no such catalogue.
    """
    rows = connection.execute(
        text(
            f"SELECT {_COLUMNS} FROM catalog_import WHERE catalog_id = :catalog "
            "ORDER BY id DESC LIMIT :limit"
        ),
        {"catalog": catalog_id(connection, name), "limit": limit},
    )
    return _imports(rows.mappings().all())


def import_of(connection: Connection, name: str, import_id: int | None) -> ImportFacts:
    """One import of a catalogue; the newest if no id is given.

    Raises:
        NotFoundError: Where there is no such catalogue, or no such import of it.
    """
    rows = connection.execute(
        text(
            f"SELECT {_COLUMNS} FROM catalog_import WHERE catalog_id = :catalog "
            "AND (CAST(:import AS bigint) IS NULL OR id = :import) ORDER BY id DESC LIMIT 1"
        ),
        {"catalog": catalog_id(connection, name), "import": import_id},
    )
    found = _imports(rows.mappings().all())
    if not found:
        raise NotFoundError(
            f"catalogue {name!r} has no import {import_id or ''}; `nightshift catalog show {name}` "
            "lists them"
        )
    return found[0]


_COLUMNS = "id, source, read, accepted, failed, unchanged, not_applied, started_at, finished_at"


def _imports(rows: Sequence[Any]) -> list[ImportFacts]:
    return [ImportFacts(**row) for row in rows]
