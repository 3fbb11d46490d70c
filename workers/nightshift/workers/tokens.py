"""Make visual tokens: train a codebook on a sample, then encode and store a block of items."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from nightshift.models.inputs.codecs.codec import Codec, codebook_digest
from nightshift.models.inputs.codecs.product import train
from nightshift.models.inputs.codecs.records import encode_record
from nightshift.models.inputs.codecs.reduce import reduce_tokens
from nightshift.models.inputs.codecs.tokens import StoredVisualTokens
from nightshift.models.inputs.content import ItemContent
from nightshift.models.vision import PreparedImageBatch, VisionTower
from nightshift.schema.errors import InputError, ModelError
from nightshift.schema.messages import BlockPayload
from nightshift.schema.params import Kinds
from nightshift.schema.states import SubjectKind
from nightshift.scoring.codecs import parse_codec
from nightshift.stores.catalog.contents import StoredRecord, load_items
from nightshift.stores.files.addresses import resolve_beside
from nightshift.stores.ledger.claims import Claim
from nightshift.stores.ledger.run_types import TokenRun
from nightshift.stores.tokens import token_sets
from nightshift.stores.tokens.shard_files import shard_name
from nightshift.stores.tokens.shards import ShardWriter, writing_shard
from nightshift.stores.tokens.token_sets import NewTokenRecord, TokenSetRow
from nightshift.workers.contents import Readers, ahead, chunks, read_contents
from nightshift.workers.failures import Outcome, record_outcomes
from nightshift.workers.lease_renewal import Progress
from nightshift.workers.session import WorkerSession
from nightshift.workers.stored_tokens import codec_of_set

__all__ = ["do_codebook", "do_tokens"]

_MICRO_BATCH = 16
_IMAGE: Kinds = frozenset({"image"})
# Vectors for each code that is learned; faiss asks for 39 at least.
_VECTORS_PER_CODE = 64


def do_codebook(
    session: WorkerSession,
    claim: Claim[TokenRun, BlockPayload],
    progress: Progress,
    tower: VisionTower,
) -> None:
    """Train the codebook of the run's token set on the job's items, unless it has one."""
    token_set, records = _load(session, claim)
    spec = parse_codec(token_set.codec)
    wanted = _VECTORS_PER_CODE * 2**spec.quantise.bits
    vectors: list[np.ndarray] = []
    outcomes: list[Outcome] = []
    if token_set.codebook_digest is None:
        for batch in _encode(tower, records, progress, outcomes):
            for image in (image for _, images in batch for image in images):
                values = image.values
                if spec.reduce is not None:
                    values = reduce_tokens(spec.reduce, values, image.tokens).vectors
                vectors.append(values)
            if sum(map(len, vectors)) >= wanted:
                break
        if not vectors:
            raise InputError(
                f"none of the {len(records)} items of the sample has an image that can be read",
                "nothing_to_see",
            )
        book = train(spec.quantise, np.concatenate(vectors)[:wanted]).to_bytes()
        progress.step()
    with session.finish(claim) as connection:
        if token_set.codebook_digest is None:
            token_sets.keep_codebook(connection, token_set.id, book, codebook_digest(book))


def do_tokens(
    session: WorkerSession,
    claim: Claim[TokenRun, BlockPayload],
    progress: Progress,
    tower: VisionTower,
) -> None:
    """Encode the images of the job's items and store their tokens in a shard of its own."""
    token_set, records = _load(session, claim)
    codec = codec_of_set(session.database, token_set)
    with session.database.begin() as connection:
        contents = [record.hashes.image for record in records if record.hashes.image]
        known = token_sets.find_records(connection, token_set, contents)
    missing = [record for record in records if record.hashes.image not in known]
    # Never written twice, whoever wakes late: the file's name is this attempt's own.
    name = shard_name(claim.run_id, claim.job_id)
    address = resolve_beside(token_set.address, name)
    outcomes: list[Outcome] = []
    shard = _ShardInProgress(codec=codec)
    with ExitStack() as stack:
        for batch in _encode(tower, missing, progress, outcomes):
            # Opened at the first tokens: a job without any leaves no file.
            shard.writer = shard.writer or stack.enter_context(writing_shard(address))
            shard.add(batch, outcomes)
    with session.finish(claim, n_failed=len(outcomes)) as connection:
        if shard.writer is not None:
            token_sets.write_shard_rows(
                connection,
                set_id=token_set.id,
                run_id=claim.run_id,
                name=name,
                shard=shard.writer.shard(address),
                records=shard.records,
                load_id=session.load_id,
            )
        record_outcomes(connection, claim.run_id, claim.stage, SubjectKind.ITEM, outcomes)


_EncodedBatch = list[tuple[StoredRecord, tuple[StoredVisualTokens, ...]]]


@dataclass(slots=True, kw_only=True)
class _ShardInProgress:
    """The shard of a job, as far as it is written."""

    codec: Codec
    writer: ShardWriter | None = None
    records: list[NewTokenRecord] = field(default_factory=list)

    def add(self, batch: _EncodedBatch, outcomes: list[Outcome]) -> None:
        assert self.writer is not None
        for record, images in batch:
            content = record.hashes.image
            assert content is not None
            try:
                data = encode_record(images, self.codec)
            except InputError as error:
                outcomes.append(Outcome.of_error(record.external_id, error))
                continue
            self.records.append(
                NewTokenRecord(
                    content=content,
                    place=self.writer.add(data),
                    n_images=len(images),
                    n_tokens=sum(int(np.prod(image.tokens)) for image in images),
                )
            )


def _load(
    session: WorkerSession, claim: Claim[TokenRun, BlockPayload]
) -> tuple[TokenSetRow, list[StoredRecord]]:
    run, ids = claim.run, claim.payload.ids
    if run.token_set_id is None:
        raise ModelError(f"the token set of run {run.id} was deleted: plan the tokens again")
    with session.database.begin() as connection:
        token_set = token_sets.get_set(connection, run.token_set_id)
        records = load_items(connection, ids, revision=run.revision)
    return token_set, [records[item_id] for item_id in ids if item_id in records]


def _encode(
    tower: VisionTower,
    records: Sequence[StoredRecord],
    progress: Progress,
    outcomes: list[Outcome],
) -> Iterator[_EncodedBatch]:
    """Visual tokens of records in micro-batches, read ahead; bad records become outcomes."""

    def prepare(
        batch: Sequence[StoredRecord], readers: Readers
    ) -> tuple[list[StoredRecord], PreparedImageBatch, list[Outcome]]:
        good: list[StoredRecord] = []
        contents: list[ItemContent] = []
        failed: list[Outcome] = []
        read = read_contents(batch, _IMAGE, readers, tower.prepare_image)
        for record, content in zip(batch, read, strict=True):
            if isinstance(content, InputError):
                failed.append(Outcome.of_error(record.external_id, content))
            else:
                good.append(record)
                contents.append(content)
        return good, tower.prepare(contents), failed

    for good, prepared, failed in ahead(chunks(records, _MICRO_BATCH), prepare):
        outcomes += failed
        if good:
            yield list(zip(good, tower.encode(prepared), strict=True))
        progress.step()
