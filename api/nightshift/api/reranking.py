"""Planning of a re-ranking run: read the queries, describe the models, resolve, write the run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import Connection

from nightshift.models.checkpoints.describe import describe_scorer, describe_vision
from nightshift.models.preflight.loadable import require_loadable
from nightshift.producers.plan_rerank import RerankEstimate, estimate_rerank, plan_rerank
from nightshift.producers.plan_tokens import token_set_of
from nightshift.producers.query_import import QuerySetSummary, import_queries, read_queries
from nightshift.producers.requests import RerankRequest
from nightshift.producers.resolve import resolve_rerank, resolve_scorer, resolve_tokens
from nightshift.schema.errors import InputError
from nightshift.schema.models import ModelFacts
from nightshift.schema.params import RerankParams, ScorerParams
from nightshift.schema.settings import Settings
from nightshift.scoring.codecs import parse_codec
from nightshift.stores.catalog.query_sets import parts_of_set
from nightshift.stores.files.blobs import BlobStore
from nightshift.stores.index.indexes import ready_index
from nightshift.stores.postgres.database import Database

__all__ = ["PlannedRerank", "RerankPreview", "plan", "preview"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRerank:
    """A re-ranking run that has begun."""

    run_id: int
    #: The index that is searched.
    index: str
    version: int
    n_queries: int
    #: Pairs that are scored at most.
    max_pairs: int
    #: Items of the newest revision that the index lacks, so that no query finds them.
    not_indexed: int
    #: Reason → rows of the queries and of the judgements that could not be read.
    reasons: Mapping[str, int]
    #: A sentence about files and fields of the queries that nobody reads; empty without any.
    left_out: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankPreview:
    """A re-ranking run that was not begun: its parameters and its cost."""

    params: RerankParams
    estimate: RerankEstimate
    queries: QuerySetSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class _RerankFacts:
    """Facts about models and index that a request needs before its queries are read."""

    scorer: ModelFacts
    scorer_params: ScorerParams
    token_set_id: int | None
    #: Parts that the embedder of the index sees; empty where the request names others.
    index_parts: str


def plan(database: Database, settings: Settings, request: RerankRequest) -> PlannedRerank:
    """Import the queries of a request and begin its run.

    Raises:
        NotFoundError: The catalogue, a ready index, a needed token set or the file does not exist.
        ConfigurationError: The request contradicts itself or the method.
        ModelError: No worker could load the scorer.
        InputError: No query of the file can be used.
    """
    facts = _look_up(database, request)
    queries = import_queries(
        database,
        request.queries,
        name=request.query_set,
        qrels=request.qrels,
        blobs=BlobStore(settings.data_dir / "blobs"),
        image_roots=settings.image_roots,
    )
    with database.begin() as connection:
        params = _resolve(connection, request, facts, queries.query_set_id)
    planned = plan_rerank(
        database,
        request.catalog,
        index_name=request.index,
        query_set_id=queries.query_set_id,
        scorer=facts.scorer,
        params=params,
        token_set_id=facts.token_set_id,
        build_index=request.build_index,
        priority=request.priority,
    )
    return PlannedRerank(
        run_id=planned.run_id,
        index=planned.index,
        version=planned.version,
        n_queries=queries.n_queries,
        max_pairs=planned.n_units,
        not_indexed=planned.not_indexed,
        reasons=queries.reasons,
        left_out=queries.left_out,
    )


def preview(database: Database, settings: Settings, request: RerankRequest) -> RerankPreview:
    """Estimate the cost of a run, and keep nothing.

    The queries are imported in a transaction that is rolled back, and images that came inside
    their file go to a folder that is deleted.

    Raises:
        NotFoundError: As for `plan`, as are the other errors.
    """
    facts = _look_up(database, request)
    with TemporaryDirectory() as folder, database.sketch() as connection:
        queries = read_queries(
            connection,
            request.queries,
            qrels=request.qrels,
            blobs=BlobStore(Path(folder)),
            image_roots=settings.image_roots,
        )
        if not queries.n_queries:
            reason = queries.first_message or "it is empty"
            raise InputError(
                f"{request.queries} holds no query that can be used ({reason})", "no_queries"
            )
        params = _resolve(connection, request, facts, queries.query_set_id)
        estimate = estimate_rerank(
            connection,
            request.catalog,
            index_name=request.index,
            query_set_id=queries.query_set_id,
            scorer=facts.scorer,
            params=params,
        )
    return RerankPreview(params=params, estimate=estimate, queries=queries)


def _look_up(database: Database, request: RerankRequest) -> _RerankFacts:
    tokens = resolve_tokens(request)
    vision = describe_vision(
        request.scorer,
        min_pixels=tokens.min_pixels,
        max_pixels=tokens.max_pixels,
        long_side=tokens.long_side,
    )
    token_set = token_set_of(database, request.catalog, vision, parse_codec(tokens.codec))
    index_parts = ""
    if request.item_parts is None:
        with database.begin() as connection:
            index_parts = ready_index(connection, request.catalog, request.index).parts
    codebook = token_set.codebook_digest if token_set is not None else None
    params = resolve_scorer(request, codebook=codebook or "")
    scorer = describe_scorer(request.scorer, params)
    require_loadable(scorer, params)
    return _RerankFacts(
        scorer=scorer,
        scorer_params=params,
        token_set_id=None if token_set is None else token_set.id,
        index_parts=index_parts,
    )


def _resolve(
    connection: Connection, request: RerankRequest, facts: _RerankFacts, query_set_id: int
) -> RerankParams:
    return resolve_rerank(
        request,
        scorer=facts.scorer_params,
        query_parts=parts_of_set(connection, query_set_id),
        index_parts=facts.index_parts,
    )
