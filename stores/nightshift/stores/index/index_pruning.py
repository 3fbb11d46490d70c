"""Removal of retired index versions, with their vectors in Milvus.

The row of a version goes last. A kill before that leaves a retired version that no run searches,
and the next pruning takes it up again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import sleep

from sqlalchemy import Connection, delete, text

from nightshift.schema.tables import IndexVersion
from nightshift.stores.catalog.catalogs import catalog_id
from nightshift.stores.index.index_sizes import KEY_BYTES, NUMBER_BYTES
from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.index.writer import hold_writer
from nightshift.stores.ledger.run_pruning import pinned_runs, remove_run
from nightshift.stores.postgres.database import Database

__all__ = ["IndexPruning", "PrunedIndex", "prune_indexes"]

_TRIES, _PAUSE_S = 20, 0.25
#: Of `embedding`, deleted in one transaction.
_PAGE = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedIndex:
    """An index version that a pruning removes, or would remove."""

    id: int
    catalog: str
    index: str
    version: int
    collection: str
    #: Live ones; Milvus may hold more.
    vectors: int
    #: Of these vectors and their keys as Milvus stores them, computed.
    bytes: int
    #: Its builds, which go with it.
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexPruning:
    """The result of a pruning of indexes, or of its dry run."""

    indexes: list[PrunedIndex]
    #: One line with the reason for each version that was to go and stays.
    skipped: list[str]

    @property
    def bytes(self) -> int:
        """The size of the vectors of all versions that go."""
        return sum(index.bytes for index in self.indexes)


def prune_indexes(
    database: Database,
    vectors: VectorStore,
    *,
    keep: int = 0,
    catalog: str | None = None,
    dry_run: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> IndexPruning:
    """Remove retired index versions that no re-ranking searched, their builds included.

    Args:
        database: Postgres.
        vectors: Milvus.
        keep: Of each index, so many of the newest retired versions stay.
        catalog: Only indexes of this catalogue.
        dry_run: Only report what would go.
        progress: Called with the numbers of versions that are removed and of all.

    Raises:
        NotFoundError: There is no such catalogue.
        ServiceUnavailableError: Milvus stays away; a version that has lost its rows in Postgres is
            taken up by the next pruning.
    """
    with database.begin() as connection:
        number = None if catalog is None else catalog_id(connection, catalog)
        chosen, skipped = _choose(connection, keep, number)
    removed = []
    for done, index in enumerate(chosen):
        progress(done, len(chosen))
        if not dry_run and (reason := _remove(database, vectors, index)):
            skipped.append(f"{_name(index)}: {reason}")
        else:
            removed.append(index)
    return IndexPruning(indexes=removed, skipped=skipped)


def _choose(
    connection: Connection, keep: int, catalog: int | None
) -> tuple[list[PrunedIndex], list[str]]:
    values = {"keep": keep, "catalog": catalog, "pinned": list(pinned_runs(connection))}
    chosen, skipped = [], []
    for row in connection.execute(_CHOOSE_VERSIONS, values):
        index = PrunedIndex(
            id=row.id,
            catalog=row.catalog,
            index=row.name,
            version=row.version,
            collection=row.collection,
            vectors=row.vectors,
            bytes=row.vectors * (row.dim * NUMBER_BYTES + KEY_BYTES),
            runs=row.builds,
        )
        if row.needed_by is None:
            chosen.append(index)
        else:
            skipped.append(f"{_name(index)}: {_needed(row.needed_by)}")
    return chosen, skipped


def _remove(database: Database, vectors: VectorStore, index: PrunedIndex) -> str:
    """Remove a version; the reason why it stays, or nothing."""
    if reason := _remove_builds(database, index):
        return reason
    while True:
        with database.begin() as connection:
            page = connection.execute(_DELETE_EMBEDDINGS, {"index": index.id, "page": _PAGE})
        if page.rowcount < _PAGE:
            break
    with hold_writer(database, vectors, f"pruning of {index.collection}"):
        vectors.drop(index.collection)
    with database.begin() as connection:
        connection.execute(delete(IndexVersion).where(IndexVersion.id == index.id))
    return ""


def _remove_builds(database: Database, index: PrunedIndex) -> str:
    """Remove the runs that built a version, so that nothing refers to it any more."""
    refused = 0
    while refused < _TRIES:
        # One a transaction: others wait for the tables meanwhile.
        with database.begin() as connection:
            if connection.execute(_LOCK_VERSION, {"index": index.id}).one_or_none() is None:
                return ""  # another pruning was faster
            values = {"index": index.id, "pinned": list(pinned_runs(connection))}
            needed_by = connection.execute(_NEEDED_BY, values).scalar()
            if needed_by is not None:
                return _needed(needed_by)
            build = connection.execute(_LOCK_BUILD, {"index": index.id}).scalar()
            if build is None:
                return ""
            removed = remove_run(connection, build)
        if not removed:
            refused += 1
            sleep(_PAUSE_S)
    return "others use the tables of its builds all the time; try again later"


def _name(index: PrunedIndex) -> str:
    return f"index {index.index!r} version {index.version} of catalogue {index.catalog!r}"


def _needed(run_id: int) -> str:
    return f"run {run_id} needs it; it goes when that run is gone (`nightshift run prune`)"


#: SQL condition: `run` needs the index version that it names: a search, or a build at work.
_NEEDS_INDEX = (
    "(run.kind <> 'index' OR run.state IN ('running', 'paused') OR run.id = ANY(:pinned))"
)

# Lists retired versions but for the newest, each with its vectors, builds and a run that needs it.
_CHOOSE_VERSIONS = text(f"""
    SELECT i.id, catalog.name AS catalog, i.name, i.version, i.dim, i.collection,
        (SELECT count(*) FROM embedding WHERE embedding.index_id = i.id) AS vectors,
        (SELECT count(*) FROM run WHERE run.index_id = i.id AND run.kind = 'index') AS builds,
        (SELECT min(run.id) FROM run WHERE run.index_id = i.id AND {_NEEDS_INDEX}) AS needed_by
    FROM (
        SELECT *, row_number() OVER (PARTITION BY catalog_id, name ORDER BY version DESC) AS age
        FROM "index" WHERE state = 'retired'
    ) AS i JOIN catalog ON catalog.id = i.catalog_id
    WHERE i.age > :keep AND (CAST(:catalog AS bigint) IS NULL OR i.catalog_id = :catalog)
    ORDER BY i.id
""")

# Locks a retired version, so that no run that needs it is planned or taken up meanwhile.
_LOCK_VERSION = text("""
    SELECT id FROM "index" WHERE id = :index AND state = 'retired' FOR UPDATE
""")

# Finds a run that needs a version.
_NEEDED_BY = text(f"""
    SELECT min(run.id) FROM run WHERE run.index_id = :index AND {_NEEDS_INDEX}
""")

# Locks the oldest build of a version.
_LOCK_BUILD = text("""
    SELECT id FROM run WHERE index_id = :index AND kind = 'index' ORDER BY id LIMIT 1 FOR UPDATE
""")

# Deletes some embeddings of a version.
_DELETE_EMBEDDINGS = text("""
    DELETE FROM embedding WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM embedding WHERE index_id = :index LIMIT :page))
""")
