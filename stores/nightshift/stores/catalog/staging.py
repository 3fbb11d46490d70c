"""Staged rows of an import: compared with the catalogue in bulk, applied in one transaction.

Rows are staged in a temporary table of one connection. So an import that is killed leaves nothing
behind, neither in the catalogue nor in another table.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from nightshift.stores.catalog.catalogs import CheckedRecord, record_columns, require_newest
from nightshift.stores.catalog.contents import BELONGS_IN_INDEX
from nightshift.stores.catalog.import_failures import storable_text
from nightshift.stores.postgres.database import copy_into

__all__ = ["Comparison", "Duplicate", "KindCounts", "Staging"]

_RECORD = (
    *("position", "external_id", "parts", "text_hash", "image_hash", "content_hash"),
    "metadata",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KindCounts:
    """Counts of items by the kinds of their parts."""

    text: int = 0
    image: int = 0
    both: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Counts of what applying the staged rows would change."""

    #: New, changed, or back after they were gone.
    accepted: int
    #: Content, parts and metadata are stored already.
    unchanged: int
    #: Live items that the source names.
    known: int
    #: Those whose kinds of parts would change.
    kinds_changed: int
    kinds_before: KindCounts
    kinds_after: KindCounts
    #: Live items of the source.
    owned: int
    #: Those that it no longer names, not even in a row that failed.
    leaving: int
    #: Live items that it does not name and whose source an earlier release did not record.
    unknown: int
    #: Live items that it does not name and another source brought.
    others: int
    #: Whether nothing was taken from this source before.
    is_new_source: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate:
    """A row whose id an earlier good row has."""

    position: str
    external_id: str


class Staging:
    """The staged rows of one import.

    An item belongs to the source that last brought it: that of the import in its row. Items of
    imports whose source has no key, which are those of earlier releases, belong to a source that is
    spelled as it was then, and to the only source of a catalogue.

    Args:
        connection: From `Database.session`; every method is called inside a transaction of it.
        catalog_id: The catalogue.
        import_id: The import.
    """

    def __init__(self, connection: Connection, catalog_id: int, import_id: int) -> None:
        self._connection = connection
        self._catalog_id = catalog_id
        self._import_id = import_id
        self._values = {"catalog": catalog_id, "import": import_id}
        connection.execute(_CREATE_STAGED)

    def add(self, records: Sequence[CheckedRecord], failed_ids: Iterable[str]) -> None:
        """Stage a batch: rows to take, and ids of rows that failed, whose items stay as they are.

        Raises:
            ConflictError: When a newer import of the catalogue has begun.
        """
        require_newest(self._connection, self._catalog_id, self._import_id)
        rows = ((storable_text(record.position), *record_columns(record)) for record in records)
        copy_into(self._connection, "staged", _RECORD, rows)
        copy_into(self._connection, "staged", ("external_id",), ((name,) for name in failed_ids))

    def compare(self) -> Comparison:
        """Compare what is staged with the catalogue, which stays as it is until the commit.

        Called once, in the transaction that `apply` is called in.

        Raises:
            ConflictError: When a newer import of the catalogue has begun.
        """
        require_newest(self._connection, self._catalog_id, self._import_id, lock=True)
        for statement in _COMPARE:
            self._connection.execute(statement, self._values)
        row = self._connection.execute(_COUNT, self._values).one()
        return Comparison(
            accepted=row.accepted,
            unchanged=row.unchanged,
            known=row.known,
            kinds_changed=row.kinds_changed,
            kinds_before=KindCounts(text=row.text_was, image=row.image_was, both=row.both_was),
            kinds_after=KindCounts(text=row.text_is, image=row.image_is, both=row.both_is),
            owned=row.owned,
            leaving=row.leaving,
            unknown=row.unknown,
            others=row.others,
            is_new_source=row.is_new_source,
        )

    def duplicates(self) -> Iterator[list[Duplicate]]:
        """Good rows whose id came before, in order, after `compare`; a thousand at a time."""
        rows = self._connection.execute(_DUPLICATES)
        for page in rows.partitions():
            yield [Duplicate(position=row.position, external_id=row.external_id) for row in page]

    def apply(self, *, prune: bool) -> None:
        """Write the differences; items that are as they were are not touched.

        Items that are gone, or that lost what an index is made of, leave their indexes at once.

        Args:
            prune: Also mark the items gone that the source no longer names.
        """
        for statement in (*_APPLY, *((_PRUNE,) if prune else ()), _LEAVE_INDEXES):
            self._connection.execute(statement, self._values)


# Creates the table of staged rows, which lasts as long as its connection.
_CREATE_STAGED = text("""
    CREATE TEMP TABLE staged (number bigint GENERATED ALWAYS AS IDENTITY, position text,
        external_id text NOT NULL, parts jsonb, text_hash bytea, image_hash bytea,
        content_hash bytea, metadata jsonb)
""")

_KIND = (
    "CASE WHEN {0}.image_hash IS NULL THEN 'text' WHEN {0}.text_hash IS NULL THEN 'image' "
    "ELSE 'both' END"
)

_COMPARE = (
    text("ANALYZE staged"),
    # Says of each import whether it is of this source, of another one, or of an unknown one.
    text("""
    CREATE TEMP TABLE owner ON COMMIT DROP AS
    SELECT by.id AS import_id,
        CASE WHEN by.source_key = this.source_key THEN 'ours'
            WHEN by.source_key IS NOT NULL THEN 'other'
            WHEN by.source = this.source OR NOT EXISTS (
                SELECT FROM catalog_import another WHERE another.catalog_id = :catalog
                    AND another.source_key IS DISTINCT FROM this.source_key
                    AND (another.source_key IS NOT NULL OR another.source <> by.source))
            THEN 'ours' ELSE 'unknown' END AS who,
        by.source_key = this.source_key AS is_recorded
    FROM catalog_import by JOIN catalog_import this ON this.id = :import
    WHERE by.catalog_id = :catalog
    """),
    # Says of each distinct staged id whether its item is new, changed or unchanged.
    text(f"""
    CREATE TEMP TABLE compared ON COMMIT DROP AS
    SELECT number, item.id AS item_id,
        CASE WHEN item.id IS NULL THEN 'new'
            WHEN item.state = 'live' AND item.content_hash = staged.content_hash
                AND item.parts = staged.parts AND item.metadata = staged.metadata
            THEN 'unchanged' ELSE 'changed' END AS fate,
        coalesce(owner.is_recorded, false) AS is_recorded,
        CASE item.state WHEN 'live' THEN {_KIND.format("item")} END AS was,
        {_KIND.format("staged")} AS is_now
    FROM (
        SELECT min(number) AS number FROM staged WHERE parts IS NOT NULL GROUP BY external_id
    ) AS first_row
    JOIN staged USING (number)
    LEFT JOIN item ON item.catalog_id = :catalog AND item.external_id = staged.external_id
    LEFT JOIN owner ON owner.import_id = item.import_id
    """),
    # Lists the live items that no staged row names, and whose they are.
    text("""
    CREATE TEMP TABLE unnamed ON COMMIT DROP AS
    SELECT item.id AS item_id, coalesce(owner.who, 'unknown') AS who
    FROM item LEFT JOIN owner USING (import_id)
    WHERE item.catalog_id = :catalog AND item.state = 'live' AND NOT EXISTS (
        SELECT FROM staged WHERE staged.external_id = item.external_id)
    """),
    text("ANALYZE compared"),
    text("ANALYZE unnamed"),
)

# Counts what `Comparison` says.
_COUNT = text("""
    SELECT count(*) FILTER (WHERE fate <> 'unchanged') AS accepted,
        count(*) FILTER (WHERE fate = 'unchanged') AS unchanged,
        count(was) AS known, count(*) FILTER (WHERE was <> is_now) AS kinds_changed,
        count(*) FILTER (WHERE was = 'text') AS text_was,
        count(*) FILTER (WHERE was = 'image') AS image_was,
        count(*) FILTER (WHERE was = 'both') AS both_was,
        count(*) FILTER (WHERE was IS NOT NULL AND is_now = 'text') AS text_is,
        count(*) FILTER (WHERE was IS NOT NULL AND is_now = 'image') AS image_is,
        count(*) FILTER (WHERE was IS NOT NULL AND is_now = 'both') AS both_is,
        (SELECT count(*) FROM item JOIN owner USING (import_id)
            WHERE item.catalog_id = :catalog AND state = 'live' AND who = 'ours') AS owned,
        (SELECT count(*) FROM unnamed WHERE who = 'ours') AS leaving,
        (SELECT count(*) FROM unnamed WHERE who = 'unknown') AS unknown,
        (SELECT count(*) FROM unnamed WHERE who = 'other') AS others,
        NOT EXISTS (SELECT FROM owner JOIN catalog_import ON id = import_id
            WHERE who = 'ours' AND accepted + unchanged > 0) AS is_new_source
    FROM compared
""")

# Good rows whose id an earlier good row has.
_DUPLICATES = text("""
    SELECT position, external_id FROM staged WHERE parts IS NOT NULL
        AND NOT EXISTS (SELECT FROM compared WHERE compared.number = staged.number)
    ORDER BY number
""").execution_options(yield_per=1000)

_APPLY = (
    # Overwrites items whose content, parts or metadata changed.
    text("""
    UPDATE item SET parts = staged.parts, text_hash = staged.text_hash,
        image_hash = staged.image_hash, content_hash = staged.content_hash,
        metadata = staged.metadata, state = 'live', import_id = :import, updated_at = now()
    FROM compared JOIN staged USING (number)
    WHERE item.id = compared.item_id AND compared.fate = 'changed'
    """),
    # Gives unchanged items to this source where another one brought them before.
    text("""
    UPDATE item SET import_id = :import FROM compared
    WHERE item.id = compared.item_id AND compared.fate = 'unchanged' AND NOT compared.is_recorded
    """),
    # Adds new items in the order of the source.
    text("""
    INSERT INTO item (catalog_id, external_id, parts, text_hash, image_hash, content_hash, metadata,
        import_id)
    SELECT :catalog, external_id, parts, text_hash, image_hash, content_hash, metadata, :import
    FROM compared JOIN staged USING (number) WHERE fate = 'new' ORDER BY number
    """),
)

# Marks the items of this source as gone that it no longer names.
_PRUNE = text("""
    UPDATE item SET state = 'gone', updated_at = now() FROM unnamed
    WHERE item.id = unnamed.item_id AND unnamed.who = 'ours'
""")

# Drops the embeddings of items that no longer belong in an index. They are locked in the order in
# which jobs write them, so that neither waits for the other for ever.
_LEAVE_INDEXES = text(f"""
    WITH dead AS MATERIALIZED (
        SELECT embedding.index_id, embedding.item_id FROM embedding
        JOIN "index" i ON i.id = embedding.index_id JOIN item ON item.id = embedding.item_id
        WHERE i.catalog_id = :catalog
            AND item.id IN (SELECT item_id FROM compared WHERE fate = 'changed'
                UNION ALL SELECT item_id FROM unnamed WHERE who = 'ours')
            AND NOT ({BELONGS_IN_INDEX})
        ORDER BY embedding.index_id, embedding.item_id FOR UPDATE OF embedding
    )
    DELETE FROM embedding USING dead
    WHERE embedding.index_id = dead.index_id AND embedding.item_id = dead.item_id
""")
