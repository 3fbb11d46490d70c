"""Revisions of catalogues: the newest one, and the rows of new ones."""

from dataclasses import asdict, dataclass

from sqlalchemy import Connection, func, insert, select

from nightshift.schema.item_tables import Revision

__all__ = ["RevisionCounts", "add_revision", "newest_revision"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionCounts:
    """Counts of a revision's items, compared with the revision before."""

    #: Live in it.
    items: int
    added: int
    changed: int
    removed: int


def newest_revision(connection: Connection, catalog_id: int) -> int:
    """The number of a catalogue's newest revision; 0 where nothing was imported."""
    newest = select(func.coalesce(func.max(Revision.number), 0)).where(
        Revision.catalog_id == catalog_id
    )
    return int(connection.execute(newest).scalar_one())


def add_revision(
    connection: Connection,
    catalog_id: int,
    number: int,
    counts: RevisionCounts,
    *,
    import_id: int | None = None,
    rolled_back_to: int | None = None,
) -> None:
    """Write the row of a new revision, in the transaction that changes the catalogue.

    Args:
        connection: A transaction that holds the lock of the catalogue.
        catalog_id: The catalogue.
        number: One more than that of its newest revision.
        counts: Of its items.
        import_id: The import that makes it.
        rolled_back_to: The revision whose state it has, where it is a rollback.
    """
    connection.execute(
        insert(Revision).values(
            catalog_id=catalog_id,
            number=number,
            import_id=import_id,
            rolled_back_to=rolled_back_to,
            **asdict(counts),
        )
    )
