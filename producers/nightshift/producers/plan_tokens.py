"""Planning of a run that computes visual tokens."""

import re
from dataclasses import dataclass

from sqlalchemy import Connection

from nightshift.producers.job_sizes import block_jobs, job_size
from nightshift.producers.record_model import record_model
from nightshift.schema.errors import ConflictError, NotFoundError
from nightshift.schema.messages import BlockPayload, queue_name
from nightshift.schema.models import ModelFacts
from nightshift.schema.params import TokenParams
from nightshift.schema.plans import TokenPlan
from nightshift.schema.states import Stage
from nightshift.scoring.codecs import CodecSpec, parse_codec
from nightshift.stores.catalog import catalogs
from nightshift.stores.catalog.revisions import newest_revision
from nightshift.stores.files.addresses import resolve_beside
from nightshift.stores.ledger.jobs import add_jobs, stage_rate
from nightshift.stores.ledger.new_runs import create_token_run
from nightshift.stores.postgres.database import Database
from nightshift.stores.tokens import token_sets
from nightshift.stores.tokens.token_sets import TokenSetRow

__all__ = [
    "PlannedTokens",
    "plan_tokens",
    "token_jobs",
    "token_set_of",
]

# Items that a codebook is trained on.
_CODEBOOK_ITEMS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTokens:
    """A token run that has been planned; the dispatcher continues from here."""

    run_id: int
    codec: str
    address: str
    #: Distinct contents whose images are to be encoded.
    items: int
    n_jobs: int


def plan_tokens(
    database: Database,
    catalog: str,
    *,
    vision: ModelFacts,
    params: TokenParams,
    store: str,
    priority: int = 5,
) -> PlannedTokens:
    """Queue jobs for what a token set lacks: in a later run, only new and changed images.

    Args:
        database: Postgres.
        catalog: Its name.
        vision: The vision tower that computes the tokens.
        params: Codec and limits, as `vision` was described with.
        store: Folder or fsspec URL below which the set lies; fixed by the first run.
        priority: 0 goes first, 9 last.

    Raises:
        NotFoundError: There is no such catalogue.
        ConflictError: It has no images, or its tokens lie elsewhere.
    """
    spec = parse_codec(params.codec)
    codec = str(spec)
    with database.begin() as connection:
        catalog_id = catalogs.catalog_id(connection, catalog)
        revision = newest_revision(connection, catalog_id)
        record_model(connection, vision)
        token_set = _ensure_set(connection, catalog_id, vision, codec, store)
        ids = token_sets.items_to_see(connection, token_set, revision=revision)
        if not ids and not token_sets.distinct_items(connection, catalog_id, revision=revision):
            raise ConflictError(f"no item of catalogue {catalog!r} has an image to see")
        begin = Stage.CODEBOOK if _untrained(spec, token_set) and ids else Stage.TOKENS
        run_id = create_token_run(
            connection,
            stage=begin,
            catalog_id=catalog_id,
            revision=revision,
            token_set_id=token_set.id,
            vision=vision.spec,
            vision_fingerprint=vision.fingerprint,
            params=params.model_copy(update={"codec": codec}),
            plan=TokenPlan(items=len(ids)),
            priority=priority,
        )
        jobs = (
            _codebook_jobs(ids)
            if begin is Stage.CODEBOOK
            else token_jobs(connection, vision.fingerprint, ids)
        )
        queue = queue_name(begin, vision.fingerprint)
        n_jobs = add_jobs(connection, run_id, begin, queue, jobs)
    return PlannedTokens(
        run_id=run_id, codec=codec, address=token_set.address, items=len(ids), n_jobs=n_jobs
    )


def token_jobs(connection: Connection, fingerprint: str, ids: list[int]) -> list[BlockPayload]:
    """Jobs that encode the images of these items, sized by the tower's measured rate."""
    rate = stage_rate(connection, Stage.TOKENS, fingerprint)
    return list(block_jobs(ids, job_size(len(ids), rate)))


def token_set_of(
    database: Database, catalog: str, vision: ModelFacts, codec: CodecSpec
) -> TokenSetRow | None:
    """The token set that a re-ranking run reads; None where there is none and none is needed.

    Raises:
        NotFoundError: The codec is lossy, and no token set has been built with it.
    """
    with database.begin() as connection:
        token_set = token_sets.find_set(
            connection,
            catalog_id=catalogs.catalog_id(connection, catalog),
            vision_fingerprint=vision.fingerprint,
            codec=str(codec),
        )
    if codec.lossless or (token_set is not None and not _untrained(codec, token_set)):
        return token_set
    raise NotFoundError(
        f"catalogue {catalog!r} has no {codec} tokens by this model at these pixel limits: run "
        f"`nightshift tokens build {catalog} --scorer {vision.spec} --codec '{codec}'` first"
    )


def _ensure_set(
    connection: Connection, catalog_id: int, vision: ModelFacts, codec: str, store: str
) -> TokenSetRow:
    return token_sets.ensure_set(
        connection,
        catalog_id=catalog_id,
        vision_fingerprint=vision.fingerprint,
        codec=codec,
        width=vision.dim,
        precision=str(vision.card["precision"]),
        address=resolve_beside(store, f"{vision.fingerprint}/{_slug(codec)}"),
    )


def _codebook_jobs(ids: list[int]) -> list[BlockPayload]:
    """One job that trains a codebook, from items spread over the catalogue."""
    sample = ids[:: max(1, len(ids) // _CODEBOOK_ITEMS)][:_CODEBOOK_ITEMS]
    return list(block_jobs(sample, len(sample)))


def _untrained(codec: CodecSpec, token_set: TokenSetRow) -> bool:
    return codec.trained and token_set.codebook_digest is None


def _slug(codec: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", codec).strip("-")
