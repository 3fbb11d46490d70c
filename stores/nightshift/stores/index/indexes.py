"""Index versions: found, created, and made ready."""

from dataclasses import dataclass

from sqlalchemy import Connection, text

from nightshift.schema.errors import NotFoundError
from nightshift.schema.states import IndexState
from nightshift.stores.catalog.catalogs import catalog_id
from nightshift.stores.catalog.contents import BELONGS_IN_INDEX

__all__ = [
    "IndexRow",
    "IndexSummary",
    "LiveItem",
    "count_live",
    "create_version",
    "find_index",
    "get_index",
    "list_indexes",
    "live_items",
    "lock_name",
    "make_ready",
    "ready_index",
    "ready_indexes",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexRow:
    """One version of an index."""

    id: int
    catalog_id: int
    name: str
    version: int
    embedder: str
    embedder_fingerprint: str
    parts: str
    dim: int
    index_type: str
    collection: str
    state: IndexState

    @property
    def alias(self) -> str:
        """The index' name for outsiders: the collection's without its version."""
        return self.collection.rpartition("_v")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSummary:
    """An index version as an operator sees it."""

    catalog: str
    index: str
    version: int
    state: IndexState
    #: Items with a live vector.
    items: int
    parts: str
    dim: int
    index_type: str
    embedder: str
    collection: str
    #: Mean share of its squared length that a vector has in its five largest dimensions; near 1, a
    #: cosine compares little else. None where nobody measured it.
    top_share: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveItem:
    """An item that a search may return."""

    id: int
    external_id: str
    #: Digest of what the embedder saw of it.
    content: bytes


def list_indexes(connection: Connection) -> list[IndexSummary]:
    """Every version of every index, the newest first."""
    rows = connection.execute(
        text(
            """
            SELECT catalog.name AS catalog, i.name AS index, i.version, i.state,
                (SELECT count(*) FROM embedding WHERE index_id = i.id) AS items,
                i.parts, i.dim, i.index_type, i.embedder, i.collection,
                (SELECT sum(amount) FILTER (WHERE t.name = 'top_share')
                    / nullif(sum(amount) FILTER (WHERE t.name = 'vectors'), 0)
                    FROM run JOIN v_tally t ON t.run_id = run.id
                    WHERE run.index_id = i.id) AS top_share
            FROM "index" i JOIN catalog ON catalog.id = i.catalog_id ORDER BY i.id DESC
            """
        )
    )
    return [IndexSummary(**{**row, "state": IndexState(row["state"])}) for row in rows.mappings()]


def find_index(
    connection: Connection,
    catalog: int,
    *,
    name: str | None = None,
    state: IndexState | None = IndexState.READY,
) -> IndexRow | None:
    """The newest version of an index of a catalogue; of any name if none is given."""
    row = (
        connection.execute(
            text(
                """
                SELECT id, catalog_id, name, version, embedder, embedder_fingerprint, parts, dim,
                    index_type, collection, state
                FROM "index" WHERE catalog_id = :catalog AND state <> 'retired'
                    AND (CAST(:name AS text) IS NULL OR name = :name)
                    AND (CAST(:state AS text) IS NULL OR state = :state)
                ORDER BY id DESC LIMIT 1
                """
            ),
            {"catalog": catalog, "name": name, "state": state.value if state else None},
        )
        .mappings()
        .one_or_none()
    )
    return None if row is None else IndexRow(**{**row, "state": IndexState(row["state"])})


def get_index(connection: Connection, index_id: int) -> IndexRow:
    """An index version by its number."""
    row = (
        connection.execute(
            text(
                """
                SELECT id, catalog_id, name, version, embedder, embedder_fingerprint, parts, dim,
                    index_type, collection, state
                FROM "index" WHERE id = :id
                """
            ),
            {"id": index_id},
        )
        .mappings()
        .one()
    )
    return IndexRow(**{**row, "state": IndexState(row["state"])})


def ready_index(connection: Connection, catalog: str, name: str | None) -> IndexRow:
    """The newest ready version of an index, by names.

    Raises:
        NotFoundError: With the command that makes one.
    """
    index = find_index(connection, catalog_id(connection, catalog), name=name)
    if index is None:
        wanted = f"index {name!r}" if name else "index"
        raise NotFoundError(
            f"no {wanted} of catalogue {catalog!r} is ready; `nightshift index build {catalog} "
            "--embedder SPEC` makes one, `nightshift run list` shows whether one is being built"
        )
    return index


def ready_indexes(connection: Connection) -> list[IndexRow]:
    """The versions that searches use."""
    rows = connection.execute(
        text(
            """
            SELECT id, catalog_id, name, version, embedder, embedder_fingerprint, parts, dim,
                index_type, collection, state
            FROM "index" WHERE state = 'ready' ORDER BY id
            """
        )
    )
    return [IndexRow(**{**row, "state": IndexState(row["state"])}) for row in rows.mappings()]


def lock_name(connection: Connection, catalog: int, name: str) -> None:
    """Until the end of the transaction, no other begins a version of that index."""
    connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended('index ' || :catalog || :name, 0))"),
        {"catalog": f"{catalog} ", "name": name},
    )


def create_version(
    connection: Connection,
    catalog: int,
    *,
    name: str,
    embedder: str,
    embedder_fingerprint: str,
    parts: str,
    dim: int,
    index_type: str,
) -> IndexRow:
    """Begin a new version of an index, with a Milvus collection name of its own."""
    row = (
        connection.execute(
            text(
                """
                INSERT INTO "index" (catalog_id, name, version, embedder, embedder_fingerprint,
                    parts, dim, index_type, collection)
                SELECT :catalog, :name, coalesce(max(version), 0) + 1, :embedder, :fingerprint,
                    :parts, :dim, :index_type,
                    'nightshift_' || :catalog || '_' ||
                        substr(md5(:name), 1, 8) || '_v' || coalesce(max(version), 0) + 1
                FROM "index" WHERE catalog_id = :catalog AND name = :name
                RETURNING id, catalog_id, name, version, embedder, embedder_fingerprint, parts,
                    dim, index_type, collection, state
                """
            ),
            {
                "catalog": catalog,
                "name": name,
                "embedder": embedder,
                "fingerprint": embedder_fingerprint,
                "parts": parts,
                "dim": dim,
                "index_type": index_type,
            },
        )
        .mappings()
        .one()
    )
    return IndexRow(**{**row, "state": IndexState(row["state"])})


def make_ready(connection: Connection, index_id: int) -> None:
    """Let searches use this version and retire the older ones of its name."""
    connection.execute(
        text(
            """
            UPDATE "index" AS i SET state = CASE WHEN i.id = :id THEN 'ready' ELSE 'retired' END
            FROM "index" AS this
            WHERE this.id = :id AND i.catalog_id = this.catalog_id AND i.name = this.name
                AND i.version <= this.version AND i.state <> 'retired'
            """
        ),
        {"id": index_id},
    )


def count_live(connection: Connection, index_id: int) -> int:
    """Items with a live vector."""
    return int(
        connection.execute(
            text("SELECT count(*) FROM embedding WHERE index_id = :index"), {"index": index_id}
        ).scalar_one()
    )


def live_items(connection: Connection, index_id: int, keys: list[str]) -> dict[str, LiveItem]:
    """Items of those Milvus keys that are live; keys unknown to Postgres drop out.

    So do items that are gone or lost the part that the index is made of.
    """
    rows = connection.execute(
        text(
            "SELECT key, item.id, external_id, CASE i.parts WHEN 'text' THEN text_hash "
            "WHEN 'image' THEN image_hash ELSE content_hash END AS content "
            'FROM embedding JOIN "index" i ON i.id = index_id JOIN item ON item.id = item_id '
            f"WHERE index_id = :index AND key = ANY(:keys) AND {BELONGS_IN_INDEX}"
        ),
        {"index": index_id, "keys": keys},
    )
    return {
        row.key: LiveItem(
            id=int(row.id), external_id=row.external_id, content=bytes(row.content or b"")
        )
        for row in rows
    }
