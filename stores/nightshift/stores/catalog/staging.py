"""Staged rows of an import: compared with the catalogue in bulk, applied in one transaction.

Rows are staged in a temporary table of one connection. So an import that is killed leaves nothing
behind, neither in the catalogue nor in another table. Only differences are written: contents that
nobody has yet, new items, and versions of items that are new, changed or gone.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

from sqlalchemy import Connection, text

from nightshift.stores.catalog.catalogs import CheckedRecord, record_columns, require_newest
from nightshift.stores.catalog.comparison import Comparison, Duplicate, KindCounts
from nightshift.stores.catalog.contents import IS_CURRENT
from nightshift.stores.catalog.import_failures import storable_text
from nightshift.stores.catalog.revisions import add_revision, newest_revision
from nightshift.stores.postgres.database import copy_into

__all__ = ["Staging"]

_RECORD = (
    *("position", "digest", "external_id", "parts", "text_hash", "image_hash"),
    *("content_hash", "metadata"),
)


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
        rows = (_staged_row(record) for record in records)
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
            added=row.added,
            unchanged=row.unchanged,
            live=row.live,
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

    def apply(self, comparison: Comparison, *, prune: bool) -> int:
        """Write the differences as a new revision; items that are as they were are not touched.

        Args:
            comparison: As `compare` returned it.
            prune: Also end the items that the source no longer names.

        Returns:
            The number of the revision.
        """
        revision = newest_revision(self._connection, self._catalog_id) + 1
        values = {**self._values, "revision": revision}
        for statement in (*_APPLY, *((_PRUNE,) if prune else ())):
            self._connection.execute(statement, values)
        add_revision(
            self._connection,
            self._catalog_id,
            revision,
            comparison.counts_after(prune=prune),
            import_id=self._import_id,
        )
        return revision


def _staged_row(record: CheckedRecord) -> tuple[object, ...]:
    external_id, parts, *rest = record_columns(record)
    # As `content_digest` of the parts, whose text is at hand.
    digest = hashlib.sha256(parts.encode()).digest()
    return storable_text(record.position), digest, external_id, parts, *rest


# Creates the table of staged rows, which lasts as long as its connection.
_CREATE_STAGED = text("""
    CREATE TEMP TABLE staged (number bigint GENERATED ALWAYS AS IDENTITY, position text,
        external_id text NOT NULL, digest bytea, parts text, text_hash bytea, image_hash bytea,
        content_hash bytea, metadata text)
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
            WHEN content.digest = staged.digest AND v.metadata = CAST(staged.metadata AS jsonb)
            THEN 'unchanged' ELSE 'changed' END AS fate,
        coalesce(owner.is_recorded, false) AS is_recorded,
        CASE WHEN content.id IS NOT NULL THEN {_KIND.format("content")} END AS was,
        {_KIND.format("staged")} AS is_now
    FROM (
        SELECT min(number) AS number FROM staged WHERE digest IS NOT NULL GROUP BY external_id
    ) AS first_row
    JOIN staged USING (number)
    LEFT JOIN item ON item.catalog_id = :catalog AND item.external_id = staged.external_id
    LEFT JOIN item_version v ON v.item_id = item.id AND {IS_CURRENT}
    LEFT JOIN content ON content.id = v.content_id
    LEFT JOIN owner ON owner.import_id = item.import_id
    """),
    # Lists the live items that no staged row names, and whose they are.
    text(f"""
    CREATE TEMP TABLE unnamed ON COMMIT DROP AS
    SELECT item.id AS item_id, coalesce(owner.who, 'unknown') AS who
    FROM item JOIN item_version v ON v.item_id = item.id AND {IS_CURRENT}
    LEFT JOIN owner USING (import_id)
    WHERE item.catalog_id = :catalog AND NOT EXISTS (
        SELECT FROM staged WHERE staged.external_id = item.external_id)
    """),
    text("ANALYZE compared"),
    text("ANALYZE unnamed"),
)

# Counts what `Comparison` says.
_COUNT = text(f"""
    SELECT count(*) FILTER (WHERE fate <> 'unchanged') AS accepted,
        count(*) FILTER (WHERE was IS NULL) AS added,
        count(*) FILTER (WHERE fate = 'unchanged') AS unchanged,
        count(was) AS known, count(*) FILTER (WHERE was <> is_now) AS kinds_changed,
        count(*) FILTER (WHERE was = 'text') AS text_was,
        count(*) FILTER (WHERE was = 'image') AS image_was,
        count(*) FILTER (WHERE was = 'both') AS both_was,
        count(*) FILTER (WHERE was IS NOT NULL AND is_now = 'text') AS text_is,
        count(*) FILTER (WHERE was IS NOT NULL AND is_now = 'image') AS image_is,
        count(*) FILTER (WHERE was IS NOT NULL AND is_now = 'both') AS both_is,
        (SELECT count(*) FROM item JOIN item_version v ON v.item_id = item.id AND {IS_CURRENT}
            JOIN owner USING (import_id)
            WHERE item.catalog_id = :catalog AND who = 'ours') AS owned,
        (SELECT count(*) FROM unnamed WHERE who = 'ours') AS leaving,
        (SELECT count(*) FROM unnamed WHERE who = 'unknown') AS unknown,
        (SELECT count(*) FROM unnamed WHERE who = 'other') AS others,
        (SELECT count(*) FROM item JOIN item_version v ON v.item_id = item.id AND {IS_CURRENT}
            WHERE item.catalog_id = :catalog) AS live,
        NOT EXISTS (SELECT FROM owner JOIN catalog_import ON id = import_id
            WHERE who = 'ours' AND accepted + unchanged > 0) AS is_new_source
    FROM compared
""")

# Good rows whose id an earlier good row has.
_DUPLICATES = text("""
    SELECT position, external_id FROM staged WHERE digest IS NOT NULL
        AND NOT EXISTS (SELECT FROM compared WHERE compared.number = staged.number)
    ORDER BY number
""").execution_options(yield_per=1000)

_APPLY = (
    # Adds the contents that nobody has yet, in the order of their digests, so that two imports do
    # not wait for each other.
    text("""
    INSERT INTO content (digest, parts, text_hash, image_hash, content_hash)
    SELECT DISTINCT ON (digest) digest, CAST(parts AS jsonb), text_hash, image_hash, content_hash
    FROM compared JOIN staged USING (number) WHERE fate <> 'unchanged' ORDER BY digest, number
    ON CONFLICT (digest) DO NOTHING
    """),
    # Gives items to this source where another one brought them before.
    text("""
    UPDATE item SET import_id = :import FROM compared
    WHERE item.id = compared.item_id AND NOT compared.is_recorded
    """),
    # Adds new items in the order of the source.
    text("""
    INSERT INTO item (catalog_id, external_id, import_id)
    SELECT :catalog, external_id, :import
    FROM compared JOIN staged USING (number) WHERE fate = 'new' ORDER BY number
    """),
    # Ends the versions of changed items.
    text(f"""
    UPDATE item_version v SET last_revision = :revision - 1 FROM compared
    WHERE v.item_id = compared.item_id AND compared.fate = 'changed' AND {IS_CURRENT}
    """),
    # Adds the versions of new and changed items, and of those that are back.
    text("""
    INSERT INTO item_version (item_id, first_revision, content_id, metadata)
    SELECT item.id, :revision, content.id, CAST(staged.metadata AS jsonb)
    FROM compared JOIN staged USING (number) JOIN content USING (digest)
    JOIN item ON item.catalog_id = :catalog AND item.external_id = staged.external_id
    WHERE fate <> 'unchanged' ORDER BY number
    """),
)

# Ends the versions of the items of this source that it no longer names.
_PRUNE = text(f"""
    UPDATE item_version v SET last_revision = :revision - 1 FROM unnamed
    WHERE v.item_id = unnamed.item_id AND unnamed.who = 'ours' AND {IS_CURRENT}
""")
