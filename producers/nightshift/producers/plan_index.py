"""Planning of an index run: the version, the items that need a vector, and the jobs."""

from dataclasses import dataclass

from sqlalchemy import Connection

from nightshift.producers.job_sizes import block_jobs, job_size
from nightshift.producers.record_model import record_model
from nightshift.schema.errors import ConflictError
from nightshift.schema.messages import queue_name
from nightshift.schema.models import ModelFacts
from nightshift.schema.names import check_name
from nightshift.schema.params import IndexParams
from nightshift.schema.plans import IndexPlan
from nightshift.schema.states import IndexState, Stage
from nightshift.stores.catalog import catalogs
from nightshift.stores.catalog.revisions import newest_revision
from nightshift.stores.index import embeddings, indexes
from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.index.writer import hold_writer
from nightshift.stores.ledger.jobs import add_jobs, stage_rate
from nightshift.stores.ledger.new_runs import create_index_run
from nightshift.stores.postgres.database import Database

__all__ = ["PlannedRun", "add_embed_jobs", "plan_index"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """A run that has been planned; the dispatcher continues from here."""

    run_id: int
    index: str
    version: int
    #: Items, or pairs at most.
    n_units: int
    n_jobs: int


def plan_index(
    database: Database,
    vectors: VectorStore,
    catalog: str,
    *,
    embedder: ModelFacts,
    parts: str,
    name: str = "default",
    index_type: str = "FLAT",
    rebuild: bool = False,
    priority: int = 5,
) -> PlannedRun:
    """Queue jobs that embed the items which an index of a catalogue lacks.

    The same embedder over the same parts continues the newest version, so a later run embeds only
    new and changed items; anything else begins a new version, which takes over when it is complete.

    Raises:
        NotFoundError: There is no such catalogue.
        ConflictError: No item of the catalogue has the parts that the embedder is to see.
        ConfigurationError: The name is blank or too long.
    """
    check_name("index", name)
    with database.begin() as connection:
        catalog_id = catalogs.catalog_id(connection, catalog)
        revision = newest_revision(connection, catalog_id)
        record_model(connection, embedder)
        index = _version_to_fill(
            connection,
            catalog_id,
            name=name,
            embedder=embedder,
            parts=parts,
            index_type=index_type,
            rebuild=rebuild,
        )
        # Before the first job can run, and harmless if this transaction then fails.
        with hold_writer(database, vectors, f"plan of {index.collection}"):
            vectors.create(index.collection, dim=index.dim, index_type=index.index_type)
        n_gone = embeddings.count_unneeded(connection, index_id=index.id)
        ids = _items_to_embed(connection, catalog, index, revision)
        run_id = create_index_run(
            connection,
            catalog_id=catalog_id,
            revision=revision,
            index_id=index.id,
            params=IndexParams(parts=parts),
            plan=IndexPlan(items=len(ids), gone=n_gone),
            priority=priority,
        )
        n_jobs = add_embed_jobs(connection, run_id, embedder.fingerprint, ids)
    return PlannedRun(
        run_id=run_id, index=index.name, version=index.version, n_units=len(ids), n_jobs=n_jobs
    )


def _version_to_fill(
    connection: Connection,
    catalog_id: int,
    *,
    name: str,
    embedder: ModelFacts,
    parts: str,
    index_type: str,
    rebuild: bool,
) -> indexes.IndexRow:
    """The newest version of an index if this run continues it, else a new version."""
    # Without the lock, two builds would begin the same version; the second continues it instead.
    indexes.lock_name(connection, catalog_id, name)
    continued = _continued(connection, catalog_id, name, embedder, parts, index_type)
    if continued is not None and not rebuild:
        return continued
    return indexes.create_version(
        connection,
        catalog_id,
        name=name,
        embedder=embedder.spec,
        embedder_fingerprint=embedder.fingerprint,
        parts=parts,
        dim=embedder.dim,
        index_type=index_type,
    )


def _continued(
    connection: Connection,
    catalog_id: int,
    name: str,
    embedder: ModelFacts,
    parts: str,
    index_type: str,
) -> indexes.IndexRow | None:
    newest = indexes.find_index(connection, catalog_id, name=name, state=None)
    if newest is None:
        return None
    same = (newest.embedder_fingerprint, newest.parts, newest.dim, newest.index_type) == (
        embedder.fingerprint,
        parts,
        embedder.dim,
        index_type,
    )
    return newest if same else None


def _items_to_embed(
    connection: Connection, catalog: str, index: indexes.IndexRow, revision: int
) -> list[int]:
    """Ids of the items that lack a vector; an error where a new version would stay empty."""
    item_ids = list(
        embeddings.items_to_embed(
            connection,
            catalog_id=index.catalog_id,
            index_id=index.id,
            parts=index.parts,
            revision=revision,
        )
    )
    if not item_ids and index.state is IndexState.BUILDING:
        raise ConflictError(
            f"no item of catalogue {catalog!r} has {index.parts} for the embedder to see; "
            "choose others with --parts, or import items first"
        )
    return item_ids


def add_embed_jobs(connection: Connection, run_id: int, fingerprint: str, ids: list[int]) -> int:
    """Queue jobs that embed these items; the number of jobs."""
    rate = stage_rate(connection, Stage.EMBED, fingerprint)
    jobs = block_jobs(ids, job_size(len(ids), rate))
    return add_jobs(connection, run_id, Stage.EMBED, queue_name(Stage.EMBED, fingerprint), jobs)
