"""Removal of old revisions of catalogues, and of items and contents that no revision has.

The rows of the revisions go first. What no revision covers any more is then found by itself, so a
pruning that is killed is taken up by the next one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlalchemy import text

from nightshift.schema.tables import Base
from nightshift.stores.catalog.catalogs import catalog_id, lock_catalog
from nightshift.stores.postgres.database import Database

__all__ = ["RevisionPruning", "prune_revisions"]

#: Ids of a slice: of items or contents that one transaction examines.
_SLICE = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionPruning:
    """The result of a pruning of a catalogue, or of its dry run."""

    catalog: str
    #: Numbers of the revisions that go, and of those that stay.
    revisions: list[int]
    kept: list[int]
    #: Versions of items that no revision that stays has.
    versions: int
    #: Contents that only these versions have.
    contents: int
    #: Size of the rows of both.
    bytes: int


def prune_revisions(
    database: Database,
    catalog: str,
    *,
    keep: int,
    dry_run: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> RevisionPruning:
    """Remove the revisions of a catalogue but for the newest, and what only they had.

    Revisions that any run reads stay, and those that a newer one replaced within the last hour: a
    run may just be planned with them.

    Args:
        database: Postgres.
        catalog: Its name.
        keep: So many of the newest revisions stay; at least 1.
        dry_run: Only report what would go.
        progress: Called with the numbers of steps that are done and of all.

    Raises:
        NotFoundError: There is no such catalogue.
    """
    with database.begin() as connection:
        number = catalog_id(connection, catalog)
        if not dry_run:
            lock_catalog(connection, number)
        values = {"catalog": number, "keep": keep}
        rows = connection.execute(_REVISIONS, values).all()
        stay = [row.number for row in rows if row.stays]
        counts = connection.execute(_COUNT, {"catalog": number, "stay": stay}).one()
        report = RevisionPruning(
            catalog=catalog,
            revisions=[row.number for row in rows if not row.stays],
            kept=stay,
            versions=counts.versions,
            contents=counts.contents,
            bytes=int(counts.bytes),
        )
        if not dry_run:
            connection.execute(_DELETE_REVISIONS, {"catalog": number, "stay": stay})
    if not dry_run:
        _delete_uncovered(database, number, progress)
    return report


def _delete_uncovered(
    database: Database, catalog: int, progress: Callable[[int, int], None]
) -> None:
    """Delete versions and items that no revision of a catalogue has, then contents without any."""
    items, contents = _slices(database, "item"), _slices(database, "content")
    total = len(items) + len(contents)
    for done, (first, last) in enumerate(items):
        progress(done, total)
        with database.begin() as connection:
            lock_catalog(connection, catalog)  # no import adds a version to an item meanwhile
            for statement in _DELETE_ITEMS:
                values = {"catalog": catalog, "first": first, "last": last}
                connection.execute(statement, values)
    for done, (first, last) in enumerate(contents, len(items)):
        progress(done, total)
        with database.begin() as connection:
            connection.execute(_KEEP_FROM_IMPORTS)
            connection.execute(_DELETE_CONTENTS, {"first": first, "last": last})


def _slices(database: Database, table: str) -> list[tuple[int, int]]:
    """Ranges of ids that cover a table, both ends included."""

    def ranges(first: int, last: int) -> Iterator[tuple[int, int]]:
        for begin in range(first, last + 1, _SLICE):
            yield begin, begin + _SLICE - 1

    assert table in Base.metadata.tables
    with database.begin() as connection:
        bounds = connection.exec_driver_sql(f"SELECT min(id), max(id) FROM {table}").one()
    return [] if bounds[0] is None else list(ranges(bounds[0], bounds[1]))


# Lists the revisions of a catalogue, and says of each whether it stays.
_REVISIONS = text("""
    SELECT number, age <= :keep
        OR coalesce(replaced_at > clock_timestamp() - interval '1 hour', true)
        OR EXISTS (SELECT FROM run WHERE run.catalog_id = :catalog AND run.revision = number)
        AS stays
    FROM (
        SELECT number, row_number() OVER (ORDER BY number DESC) AS age,
            lead(created_at) OVER (ORDER BY number) AS replaced_at
        FROM revision WHERE catalog_id = :catalog
    ) AS aged ORDER BY number
""")

_DELETE_REVISIONS = text("""
    DELETE FROM revision WHERE catalog_id = :catalog AND number <> ALL(CAST(:stay AS integer[]))
""")

# Counts the versions that none of these revisions has, and the contents that nothing else has.
_COUNT = text("""
    WITH going AS MATERIALIZED (
        SELECT v.item_id, v.first_revision, v.content_id, pg_column_size(v) AS bytes
        FROM item JOIN item_version v ON v.item_id = item.id
        WHERE item.catalog_id = :catalog AND NOT EXISTS (
            SELECT FROM unnest(CAST(:stay AS integer[])) AS number
            WHERE number BETWEEN v.first_revision AND v.last_revision)
    ), unused AS (
        SELECT pg_column_size(content) AS bytes FROM content
        WHERE id IN (SELECT content_id FROM going) AND NOT EXISTS (
            SELECT FROM item_version v WHERE v.content_id = content.id
                AND (v.item_id, v.first_revision) NOT IN (
                    SELECT item_id, first_revision FROM going))
    )
    SELECT (SELECT count(*) FROM going) AS versions, (SELECT count(*) FROM unused) AS contents,
        (SELECT coalesce(sum(bytes), 0) FROM going)
            + (SELECT coalesce(sum(bytes), 0) FROM unused) AS bytes
""")

_DELETE_ITEMS = (
    # Deletes the versions of some items that no revision has.
    text("""
    DELETE FROM item_version v USING item
    WHERE item.id = v.item_id AND item.catalog_id = :catalog AND item.id BETWEEN :first AND :last
        AND NOT EXISTS (SELECT FROM revision r WHERE r.catalog_id = :catalog
            AND r.number BETWEEN v.first_revision AND v.last_revision)
    """),
    # Deletes those items that have no version left.
    text("""
    DELETE FROM item WHERE catalog_id = :catalog AND id BETWEEN :first AND :last
        AND NOT EXISTS (SELECT FROM item_version v WHERE v.item_id = item.id)
    """),
)

# Lets no import take up a content before this transaction ends.
_KEEP_FROM_IMPORTS = text("LOCK TABLE content IN SHARE ROW EXCLUSIVE MODE")

# Deletes some contents that no item has.
_DELETE_CONTENTS = text("""
    DELETE FROM content WHERE id BETWEEN :first AND :last
        AND NOT EXISTS (SELECT FROM item_version v WHERE v.content_id = content.id)
""")
