"""Index versions: find them, create them, make them ready."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, func, insert, select, text

from nightshift.schema.columns_of import columns_of
from nightshift.schema.errors import NotFoundError
from nightshift.schema.states import IndexState
from nightshift.schema.tables import IndexVersion
from nightshift.stores.catalog.catalogs import catalog_id
from nightshift.stores.catalog.contents import (
    IN_REVISION,
    IS_CURRENT,
    ITEM_CONTENTS,
    SEEN_BY_INDEX,
)

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
    #: Items that have a vector of their present content.
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
    #: What it consists of, by `content.id`.
    content_id: int
    #: Digest of what the embedder saw of it.
    content: bytes


def list_indexes(connection: Connection) -> list[IndexSummary]:
    """Every version of every index, the newest first."""
    rows = connection.execute(_LIST_INDEXES)
    return [IndexSummary(**{**row, "state": IndexState(row["state"])}) for row in rows.mappings()]


def find_index(
    connection: Connection,
    catalog: int,
    *,
    name: str | None = None,
    state: IndexState | None = IndexState.READY,
) -> IndexRow | None:
    """The newest version of an index of a catalogue; of any name if none is given."""
    versions = _versions().where(
        IndexVersion.catalog_id == catalog, IndexVersion.state != IndexState.RETIRED
    )
    if name is not None:
        versions = versions.where(IndexVersion.name == name)
    if state is not None:
        versions = versions.where(IndexVersion.state == state)
    newest = versions.order_by(IndexVersion.id.desc()).limit(1)
    row = connection.execute(newest).mappings().one_or_none()
    return None if row is None else IndexRow(**row)


def get_index(connection: Connection, index_id: int) -> IndexRow:
    """An index version by its number."""
    row = connection.execute(_versions().where(IndexVersion.id == index_id)).mappings().one()
    return IndexRow(**row)


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
        _versions().where(IndexVersion.state == IndexState.READY).order_by(IndexVersion.id)
    )
    return [IndexRow(**row) for row in rows.mappings()]


def lock_name(connection: Connection, catalog: int, name: str) -> None:
    """Let no other transaction begin a version of that index before this one ends."""
    connection.execute(_LOCK_NAME, {"catalog": f"{catalog} ", "name": name})


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
    version = (
        select(func.coalesce(func.max(IndexVersion.version), 0) + 1)
        .where(IndexVersion.catalog_id == catalog, IndexVersion.name == name)
        .scalar_subquery()
    )
    created = connection.execute(
        insert(IndexVersion)
        .values(
            catalog_id=catalog,
            name=name,
            version=version,
            embedder=embedder,
            embedder_fingerprint=embedder_fingerprint,
            parts=parts,
            dim=dim,
            index_type=index_type,
            collection=func.concat(
                f"nightshift_{catalog}_", func.substr(func.md5(name), 1, 8), "_v", version
            ),
        )
        .returning(*columns_of(IndexRow, IndexVersion))
    )
    return IndexRow(**created.mappings().one())


def make_ready(connection: Connection, index_id: int) -> None:
    """Let searches use this version and retire the older ones of its name."""
    connection.execute(_MAKE_READY, {"id": index_id})


def count_live(connection: Connection, index_id: int, *, revision: int) -> int:
    """Items of a revision that have a vector of their content."""
    values = {"index": index_id, "revision": revision}
    return int(connection.execute(_COUNT_LIVE, values).scalar_one())


def live_items(
    connection: Connection, index_id: int, keys: list[str], *, revision: int
) -> dict[str, LiveItem]:
    """The items of these Milvus keys in a revision; a stale key is left out.

    A key is stale if Postgres does not know it, or if its item is gone in the revision or has
    another content there.
    """
    values = {"index": index_id, "keys": keys, "revision": revision}
    return {
        row.key: LiveItem(
            id=int(row.id),
            external_id=row.external_id,
            content_id=int(row.content_id),
            content=bytes(row.content),
        )
        for row in connection.execute(_LIVE_ITEMS, values)
    }


def _versions() -> Select[Any]:
    """Select index versions as `IndexRow` holds them."""
    return select(*columns_of(IndexRow, IndexVersion))


# SQL: the items and versions that have a vector of their content in an index `i`.
_WITH_VECTORS = f"""embedding e
    JOIN item_version v ON v.item_id = e.item_id
    JOIN content ON content.id = v.content_id AND e.content = {SEEN_BY_INDEX}"""

# Lists every version with its live vectors counted and what its runs measured of them.
_LIST_INDEXES = text(f"""
    SELECT catalog.name AS catalog, i.name AS index, i.version, i.state,
        (SELECT count(*) FROM {_WITH_VECTORS} WHERE e.index_id = i.id AND {IS_CURRENT}) AS items,
        i.parts, i.dim, i.index_type, i.embedder, i.collection,
        (SELECT sum(amount) FILTER (WHERE t.name = 'top_share')
            / nullif(sum(amount) FILTER (WHERE t.name = 'vectors'), 0)
            FROM run JOIN v_tally t ON t.run_id = run.id
            WHERE run.index_id = i.id) AS top_share
    FROM "index" i JOIN catalog ON catalog.id = i.catalog_id ORDER BY i.id DESC
""")

# Takes a lock on the name of an index until the transaction ends.
_LOCK_NAME = text(
    "SELECT pg_advisory_xact_lock(hashtextextended('index ' || :catalog || :name, 0))"
)

# Makes one version ready and retires the older ones of its name.
_MAKE_READY = text("""
    UPDATE "index" AS i SET state = CASE WHEN i.id = :id THEN 'ready' ELSE 'retired' END
    FROM "index" AS this
    WHERE this.id = :id AND i.catalog_id = this.catalog_id AND i.name = this.name
        AND i.version <= this.version AND i.state <> 'retired'
""")

# Finds the items of vectors by key that have their content in a revision.
_LIVE_ITEMS = text(f"""
    SELECT e.key, item.id, item.external_id, v.content_id, e.content
    FROM embedding e JOIN "index" i ON i.id = e.index_id JOIN ({ITEM_CONTENTS})
        ON item.id = e.item_id AND {SEEN_BY_INDEX} = e.content
    WHERE e.index_id = :index AND e.key = ANY(:keys) AND {IN_REVISION}
""")

# Counts the items of a revision that have a vector of their content.
_COUNT_LIVE = text(f"""
    SELECT count(*) FROM "index" i JOIN LATERAL (SELECT FROM {_WITH_VECTORS}
        WHERE e.index_id = i.id AND {IN_REVISION}) AS live ON true
    WHERE i.id = :index
""")
