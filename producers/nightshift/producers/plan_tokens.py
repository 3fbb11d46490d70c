"""Plan a run that makes visual tokens, or say how many bytes they would take."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from nightshift.producers.job_sizes import block_jobs, job_size
from nightshift.schema.distribution import installed_version
from nightshift.schema.errors import ConflictError, NotFoundError
from nightshift.schema.messages import BlockPayload, queue_name
from nightshift.schema.models import ModelFacts
from nightshift.schema.params import TokenParams
from nightshift.schema.plans import TokenPlan
from nightshift.schema.states import Stage
from nightshift.scoring.codecs import CodecSpec, parse_codec
from nightshift.stores.catalog import catalogs
from nightshift.stores.files.addresses import resolve_beside
from nightshift.stores.ledger.jobs import add_jobs, stage_rate
from nightshift.stores.ledger.new_runs import create_token_run
from nightshift.stores.models import upsert_model
from nightshift.stores.postgres.database import Database
from nightshift.stores.tokens import token_sets
from nightshift.stores.tokens.token_sets import TokenSetRow

__all__ = [
    "PlannedTokens",
    "plan_tokens",
    "token_jobs",
    "token_set_of",
]

# Items of which a codebook is learned, if fewer have not enough tokens.
_CODEBOOK_ITEMS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTokens:
    """What planning made; the dispatcher takes it from here."""

    run_id: int
    codec: str
    address: str
    #: Distinct contents whose pictures are to be seen.
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
    """Enqueue what is missing from a token set: only new or changed pictures on a later night.

    Args:
        database: Postgres.
        catalog: Its name.
        vision: Whose tokens.
        params: Codec and limits, as `vision` was described with.
        store: Folder or fsspec URL below which the set lies; kept from the first time on.
        priority: 0 goes first, 9 last.

    Raises:
        NotFoundError: There is no such catalogue.
        ConflictError: It has no pictures, or its tokens lie elsewhere.
    """
    spec = parse_codec(params.codec)
    codec = str(spec)
    with database.begin() as connection:
        catalog_id = catalogs.catalog_id(connection, catalog)
        upsert_model(
            connection,
            fingerprint=vision.fingerprint,
            kind=vision.kind,
            spec=vision.spec,
            card=vision.card,
            package_version=installed_version(),
        )
        token_set = token_sets.ensure_set(
            connection,
            catalog_id=catalog_id,
            vision_fingerprint=vision.fingerprint,
            codec=codec,
            width=vision.dim,
            precision=str(vision.card["precision"]),
            address=resolve_beside(store, f"{vision.fingerprint}/{_slug(codec)}"),
        )
        ids = token_sets.items_to_see(connection, token_set)
        if not ids and not token_sets.distinct_items(connection, catalog_id):
            raise ConflictError(f"no item of catalogue {catalog!r} has a picture to see")
        train = ids[:: max(1, len(ids) // _CODEBOOK_ITEMS)][:_CODEBOOK_ITEMS]
        begin = Stage.CODEBOOK if _untrained(spec, token_set) and ids else Stage.TOKENS
        run_id = create_token_run(
            connection,
            stage=begin,
            catalog_id=catalog_id,
            token_set_id=token_set.id,
            vision=vision.spec,
            vision_fingerprint=vision.fingerprint,
            params=params.model_copy(update={"codec": codec}),
            plan=TokenPlan(items=len(ids)),
            priority=priority,
        )
        if begin is Stage.CODEBOOK:
            jobs: Sequence[BlockPayload] = list(block_jobs(train, len(train)))
        else:
            jobs = token_jobs(connection, vision.fingerprint, ids)
        queue = queue_name(begin, vision.fingerprint)
        n_jobs = add_jobs(connection, run_id, begin, queue, jobs)
    return PlannedTokens(
        run_id=run_id, codec=codec, address=token_set.address, items=len(ids), n_jobs=n_jobs
    )


def token_jobs(connection: Connection, fingerprint: str, ids: list[int]) -> list[BlockPayload]:
    """Jobs that see these items, sized by the measured rate of this vision tower."""
    rate = stage_rate(connection, Stage.TOKENS, fingerprint)
    return list(block_jobs(ids, job_size(len(ids), rate)))


def token_set_of(
    database: Database, catalog: str, vision: ModelFacts, codec: CodecSpec
) -> TokenSetRow | None:
    """The token set that a re-ranking run reads; None where there is none and none is needed.

    Raises:
        NotFoundError: Its codec loses something, and no set tells what.
    """
    with database.begin() as connection:
        found = token_sets.find_set(
            connection,
            catalog_id=catalogs.catalog_id(connection, catalog),
            vision_fingerprint=vision.fingerprint,
            codec=str(codec),
        )
    if codec.lossless or (found is not None and not _untrained(codec, found)):
        return found
    raise NotFoundError(
        f"catalogue {catalog!r} has no {codec} tokens by this model at these pixel limits: run "
        f"`nightshift tokens build {catalog} --scorer {vision.spec} --codec '{codec}'` first"
    )


def _untrained(codec: CodecSpec, token_set: TokenSetRow) -> bool:
    return codec.trained and token_set.codebook_digest is None


def _slug(codec: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", codec).strip("-")
