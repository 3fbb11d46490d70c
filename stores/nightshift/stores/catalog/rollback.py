"""Rollback: a new revision of a catalogue that has the state of an earlier one."""

from sqlalchemy import Connection, text

from nightshift.schema.errors import ConflictError
from nightshift.stores.catalog.catalogs import catalog_id, lock_catalog
from nightshift.stores.catalog.contents import IS_CURRENT
from nightshift.stores.catalog.revision_reports import RevisionFacts, diff, revision_of
from nightshift.stores.catalog.revisions import RevisionCounts, add_revision, newest_revision

__all__ = ["rollback"]


def rollback(connection: Connection, name: str, number: int) -> RevisionFacts:
    """Give a catalogue the state of one of its earlier revisions, as a new revision.

    Args:
        connection: A transaction.
        name: The catalogue.
        number: The earlier revision.

    Returns:
        The new revision.

    Raises:
        NotFoundError: When there is no such catalogue, or no such revision of it.
        ConflictError: When it is the newest revision.
    """
    catalog = catalog_id(connection, name)
    lock_catalog(connection, catalog)
    wanted = revision_of(connection, name, number)
    newest = newest_revision(connection, catalog)
    if number == newest:
        raise ConflictError(f"revision {number} is the newest one of catalogue {name!r} already")
    differences = diff(connection, name, newest, number, limit=0)
    values = {"catalog": catalog, "target": number, "revision": newest + 1}
    for statement in _ROLL_BACK:
        connection.execute(statement, values)
    add_revision(
        connection,
        catalog,
        newest + 1,
        RevisionCounts(
            items=wanted.items,
            added=differences.added.count,
            changed=differences.changed.count,
            removed=differences.removed.count,
        ),
        rolled_back_to=number,
    )
    return revision_of(connection, name, newest + 1)


_ROLL_BACK = (
    # Ends the versions of items that the earlier revision has otherwise, or not at all.
    text(f"""
    UPDATE item_version v SET last_revision = :revision - 1 FROM item
    WHERE item.id = v.item_id AND item.catalog_id = :catalog AND {IS_CURRENT}
        AND NOT EXISTS (
            SELECT FROM item_version wanted WHERE wanted.item_id = v.item_id
                AND :target BETWEEN wanted.first_revision AND wanted.last_revision
                AND wanted.content_id = v.content_id AND wanted.metadata = v.metadata)
    """),
    # Adds the versions of the earlier revision where none is current.
    text(f"""
    INSERT INTO item_version (item_id, first_revision, content_id, metadata)
    SELECT wanted.item_id, :revision, wanted.content_id, wanted.metadata
    FROM item_version wanted JOIN item ON item.id = wanted.item_id
    WHERE item.catalog_id = :catalog
        AND :target BETWEEN wanted.first_revision AND wanted.last_revision
        AND NOT EXISTS (
            SELECT FROM item_version v WHERE v.item_id = wanted.item_id AND {IS_CURRENT})
    """),
)
