"""Revisions of a catalogue for the operator: their history, and how two of them differ."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from nightshift.schema.errors import NotFoundError
from nightshift.stores.catalog.catalogs import catalog_id

__all__ = ["ItemDifferences", "RevisionDiff", "RevisionFacts", "diff", "history", "revision_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionFacts:
    """One revision of a catalogue, with its counts."""

    number: int
    created_at: datetime
    #: Live items.
    items: int
    #: Compared with the revision before.
    added: int
    changed: int
    removed: int
    #: The import that made it; None for a rollback, and where an earlier release imported.
    import_id: int | None
    source: str | None
    #: The revision whose state it has; None unless it is a rollback.
    rolled_back_to: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemDifferences:
    """The items of one kind of difference."""

    count: int
    #: Their external ids, sorted; the first ones, where a limit was given.
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionDiff:
    """The items that differ between an older revision and a newer one."""

    catalog: str
    older: int
    newer: int
    #: Live in the newer revision alone.
    added: ItemDifferences
    #: Live in both, with another content or other metadata.
    changed: ItemDifferences
    #: Live in the older revision alone.
    removed: ItemDifferences


def history(connection: Connection, name: str, *, limit: int | None = None) -> list[RevisionFacts]:
    """The revisions of a catalogue, the newest first.

    Args:
        connection: Postgres.
        name: The catalogue.
        limit: At most this number of revisions.

    Raises:
        NotFoundError: When there is no such catalogue.
    """
    values = {"catalog": catalog_id(connection, name), "number": None, "limit": limit}
    rows = connection.execute(_HISTORY, values).mappings()
    return [RevisionFacts(**row) for row in rows]


def revision_of(connection: Connection, name: str, number: int) -> RevisionFacts:
    """One revision of a catalogue.

    Raises:
        NotFoundError: When there is no such catalogue, or no such revision of it.
    """
    values = {"catalog": catalog_id(connection, name), "number": number, "limit": 1}
    row = connection.execute(_HISTORY, values).mappings().one_or_none()
    if row is None:
        raise NotFoundError(
            f"catalogue {name!r} has no revision {number}; `nightshift catalog history {name}` "
            "lists them"
        )
    return RevisionFacts(**row)


def diff(
    connection: Connection, name: str, older: int, newer: int, *, limit: int | None = None
) -> RevisionDiff:
    """Compare two revisions of a catalogue, in either order.

    Args:
        connection: Postgres.
        name: The catalogue.
        older: A revision.
        newer: The revision that it is compared with.
        limit: At most this number of ids of each kind.

    Raises:
        NotFoundError: When there is no such catalogue, or no such revision of it.
    """
    for number in (older, newer):
        revision_of(connection, name, number)
    values = {
        "catalog": catalog_id(connection, name),
        "older": older,
        "newer": newer,
        "limit": limit,
    }
    rows = {row.difference: row for row in connection.execute(_DIFF, values)}

    def of_kind(kind: str) -> ItemDifferences:
        row = rows.get(kind)
        return ItemDifferences(
            count=row.items if row else 0, ids=tuple(row.ids or ()) if row else ()
        )

    return RevisionDiff(
        catalog=name,
        older=older,
        newer=newer,
        added=of_kind("added"),
        changed=of_kind("changed"),
        removed=of_kind("removed"),
    )


# Lists the revisions of a catalogue, or one of them, with their sources.
_HISTORY = text("""
    SELECT r.number, r.created_at, r.items, r.added, r.changed, r.removed, r.import_id, i.source,
        r.rolled_back_to
    FROM revision r LEFT JOIN catalog_import i ON i.id = r.import_id
    WHERE r.catalog_id = :catalog AND (CAST(:number AS int) IS NULL OR r.number = :number)
    ORDER BY r.number DESC LIMIT :limit
""")

# Counts the items that differ between two revisions by kind, and names the first of each kind.
_DIFF = text("""
    SELECT difference, count(*) AS items,
        array_agg(external_id ORDER BY place) FILTER (WHERE place <= coalesce(:limit, place)) AS ids
    FROM (
        SELECT difference, external_id, row_number() OVER (
            PARTITION BY difference ORDER BY external_id COLLATE "C") AS place
        FROM (
            SELECT item.external_id, CASE WHEN a.item_id IS NULL THEN 'added'
                WHEN b.item_id IS NULL THEN 'removed' ELSE 'changed' END AS difference
            FROM item
            LEFT JOIN item_version a ON a.item_id = item.id
                AND :older BETWEEN a.first_revision AND a.last_revision
            LEFT JOIN item_version b ON b.item_id = item.id
                AND :newer BETWEEN b.first_revision AND b.last_revision
            WHERE item.catalog_id = :catalog
                AND a.first_revision IS DISTINCT FROM b.first_revision
                AND (a.content_id IS DISTINCT FROM b.content_id
                    OR a.metadata IS DISTINCT FROM b.metadata)
        ) AS differs
    ) AS placed
    GROUP BY difference
""")
