"""Checks of Milvus and of every ready index for `nightshift doctor`."""

from collections.abc import Iterator

from nightshift.schema.errors import NightshiftError, NotFoundError, ServiceUnavailableError
from nightshift.schema.findings import Finding, skipped
from nightshift.stores.catalog.revisions import newest_revision
from nightshift.stores.index import indexes, reconcile
from nightshift.stores.index.comparison import compare
from nightshift.stores.index.indexes import IndexRow
from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.postgres.database import Database

__all__ = ["check_milvus"]


def check_milvus(
    database: Database | None, vectors: VectorStore, *, everything: bool = False
) -> Iterator[Finding]:
    """Check Milvus, and compare each collection with the index that Postgres describes.

    Args:
        database: Postgres; None while it is unavailable, which skips the indexes.
        vectors: Milvus.
        everything: Read all keys, whatever was verified before.
    """
    release = vectors.version
    if database is None:
        yield Finding(check="milvus", level="ok", message=release)
        yield skipped("indexes", "postgres")
        return
    with database.begin() as connection:
        ready = indexes.ready_indexes(connection)
    yield Finding(check="milvus", level="ok", message=f"{release}, {len(ready)} ready indexes")
    for index in ready:
        try:
            yield from _check_index(database, vectors, index, everything)
        except NotFoundError:
            yield Finding(
                check="milvus",
                level="error",
                message=f"{index.collection} is gone; the next `nightshift rerank` over it, or "
                "`nightshift doctor --repair`, makes it again and embeds its items",
            )
        except ServiceUnavailableError:
            raise
        except NightshiftError as error:
            remedy = (
                "; `nightshift down`, then `up`, sets damaged files aside"
                if vectors.is_lite
                else ""
            )
            yield Finding(check="milvus", level="error", message=f"{error}{remedy}")


def _check_index(
    database: Database, vectors: VectorStore, index: IndexRow, everything: bool
) -> Iterator[Finding]:
    collection = index.collection
    if (width := vectors.dim(collection)) != index.dim:
        yield Finding(
            check="milvus",
            level="error",
            message=f"{collection} holds vectors of {width} numbers, not {index.dim}: "
            "`nightshift doctor --repair` replaces it and embeds its items",
        )
        return
    if index.alias not in vectors.aliases(collection):
        yield Finding(
            check="milvus",
            level="warning",
            message=f"{collection} has lost its alias {index.alias}, which other programs may use: "
            "`nightshift doctor --repair` sets it",
        )
    differences = compare(database, vectors, index, everything=everything, keep=False)
    with database.begin() as connection:
        revision = newest_revision(connection, index.catalog_id)
        n_without = len(reconcile.items_without_vector(connection, index, revision=revision))
    if differences.lost:
        yield Finding(
            check="milvus",
            level="error",
            message=f"{collection} lacks {len(differences.lost)} live vectors; the next "
            "`nightshift rerank` over it, or `nightshift doctor --repair`, embeds them again",
        )
    if n_without:
        yield Finding(
            check="milvus",
            level="warning",
            message=f"{collection} has no vector of {n_without} live items and no reason for "
            "it: `nightshift index build`, or `nightshift doctor --repair`, embeds them",
        )
    if differences.n_duplicates:
        yield Finding(
            check="milvus",
            level="warning",
            message=f"{collection} holds {differences.n_duplicates} vectors twice since a crash of "
            "Milvus; the next `nightshift rerank` over it, or `nightshift doctor --repair`, "
            "merges them",
        )
    if differences.n_orphans:
        yield Finding(
            check="milvus",
            level="ok",
            message=f"{collection} holds {differences.n_orphans} vectors of items that changed or "
            "are gone",
        )
