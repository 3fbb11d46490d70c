"""Planning of an index run: describe the embedder, resolve, write the run and its jobs."""

from dataclasses import replace

from nightshift.models.checkpoints.describe import describe_embedder, describe_embedder_vision
from nightshift.models.checkpoints.spec import parse_spec
from nightshift.models.preflight.loadable import require_loadable
from nightshift.producers.plan_index import PlannedRun, plan_index
from nightshift.producers.plan_tokens import token_set_of
from nightshift.producers.requests import IndexRequest
from nightshift.producers.resolve import resolve_index
from nightshift.schema.models import ModelFacts
from nightshift.scoring.codecs import parse_codec
from nightshift.stores.catalog import catalogs
from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.postgres.database import Database

__all__ = ["plan"]


def plan(database: Database, vectors: VectorStore, request: IndexRequest) -> PlannedRun:
    """Begin the run of a request.

    Raises:
        NotFoundError: The catalogue or a needed token set does not exist.
        ConflictError: No item has the parts that the embedder is to see.
        ConfigurationError: The request has a value that is not allowed.
        ModelError: No worker could load the embedder.
    """
    with database.begin() as connection:
        catalog_id = catalogs.catalog_id(connection, request.catalog)
        params = resolve_index(request, has_images=catalogs.has_images(connection, catalog_id))
    embedder = _describe(database, request)
    require_loadable(embedder)
    return plan_index(
        database,
        vectors,
        request.catalog,
        embedder=embedder,
        parts=params.parts,
        name=request.name,
        index_type=request.index_type,
        rebuild=request.rebuild,
        priority=request.priority,
    )


def _describe(database: Database, request: IndexRequest) -> ModelFacts:
    """Name the embedder; one with a trained codec includes the codebook of its token set."""
    vision = describe_embedder_vision(request.embedder)
    spec = parse_spec(request.embedder)
    if vision is None or spec.embedding is None:
        return describe_embedder(request.embedder)
    codec = parse_codec(spec.embedding.codec)
    token_set = token_set_of(database, request.catalog, vision, codec)
    codebook = token_set.codebook_digest if token_set is not None else None
    params = spec.embedding.model_copy(update={"codebook": codebook or ""})
    return describe_embedder(str(replace(spec, embedding=params)))
