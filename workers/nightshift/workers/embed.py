"""Embed a block of items: fetch and decode ahead, embed, upsert, then make the keys live."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nightshift.models.embedders.protocol import Embedder, PreparedContents
from nightshift.models.inputs.content import ItemContent
from nightshift.schema.errors import InputError, NotFoundError
from nightshift.schema.identity import embedding_key
from nightshift.schema.messages import BlockPayload
from nightshift.schema.params import Kinds, kinds_from_text
from nightshift.schema.states import SubjectKind, TallyName
from nightshift.scoring.mixing import top_share
from nightshift.scoring.prompts import Side
from nightshift.stores.catalog.contents import StoredRecord, load_items
from nightshift.stores.index.embeddings import write_embeddings
from nightshift.stores.index.verified_ranges import announce_writes
from nightshift.stores.index.writer import hold_writer
from nightshift.stores.ledger.claims import Claim
from nightshift.stores.ledger.counters import write_tallies
from nightshift.stores.ledger.run_types import IndexedRun
from nightshift.workers.contents import Readers, ahead, chunks, prepared, read_contents
from nightshift.workers.failures import Outcome, record_outcomes
from nightshift.workers.lease_renewal import Progress
from nightshift.workers.lost_collection import restore_for
from nightshift.workers.session import WorkerSession
from nightshift.workers.stored_tokens import StoredTokens

__all__ = ["Embeddings", "do_embed", "embed_records"]

_MICRO_BATCH = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """Records that could be embedded, with their vectors, and outcomes of those that could not."""

    records: list[StoredRecord]
    #: float32 (len(records), dim), L2-normalised.
    vectors: NDArray[np.float32]
    outcomes: list[Outcome]


def do_embed(
    session: WorkerSession,
    claim: Claim[IndexedRun, BlockPayload],
    progress: Progress,
    embedder: Embedder,
) -> None:
    """Embed the job's items into the run's collection and mark them live."""
    run, ids = claim.run, claim.payload.ids
    stored = StoredTokens.of_index(session.database, run)
    kinds = kinds_from_text(run.index_parts)
    with session.database.begin() as connection:
        records = load_items(connection, ids, revision=run.revision)
    present = [records[item_id] for item_id in ids if item_id in records]
    done = embed_records(embedder, present, kinds, progress, side="candidate", stored=stored)
    keys = [_key(record, kinds, run.embedder_fingerprint) for record in done.records]
    if keys:
        # A writer that was killed keeps the others waiting, for longer than a job's lease may be.
        with hold_writer(session.database, session.vectors, session.worker_id, progress.step):
            session.refuse_changed()
            with session.database.begin() as connection:
                announce_writes(connection, run.index_id, keys)
            # Upsert and flush before the commit: a key that Postgres calls live has its vector.
            _upsert(session, run, keys, done.vectors)
            session.vectors.flush(run.collection)
    n_failed = sum(outcome.fatal for outcome in done.outcomes)
    counts = {
        TallyName.VECTORS: len(done.vectors),
        TallyName.TOP_SHARE: top_share(done.vectors).sum(),
    }
    with session.finish(claim, n_failed=n_failed) as connection:
        write_embeddings(
            connection,
            index_id=run.index_id,
            run_id=run.id,
            keys=[(record.id, key) for record, key in zip(done.records, keys, strict=True)],
            load_id=session.load_id,
        )
        write_tallies(connection, run.id, counts)
        record_outcomes(connection, run.id, claim.stage, SubjectKind.ITEM, done.outcomes)
        damaged = stored.damaged.values()
        record_outcomes(connection, run.id, claim.stage, SubjectKind.JOB, damaged)


def _upsert(
    session: WorkerSession, run: IndexedRun, keys: list[str], vectors: NDArray[np.float32]
) -> None:
    try:
        session.vectors.upsert(run.collection, keys, vectors)
    except NotFoundError:
        restore_for(session, run)
        session.vectors.upsert(run.collection, keys, vectors)


def embed_records(
    embedder: Embedder,
    records: Sequence[StoredRecord],
    kinds: Kinds,
    progress: Progress,
    *,
    side: Side,
    stored: StoredTokens,
) -> Embeddings:
    """Embed records in micro-batches; bad ones become outcomes.

    Args:
        embedder: The model.
        records: Items or queries.
        kinds: The parts it may see.
        progress: Reported after each micro-batch.
        side: Whether they are queries or items: mixed contents are weighted by it.
        stored: Visual tokens that are read in place of images.
    """
    if "image" in kinds:
        stored.locate({side: records})

    def prepare(batch: Sequence[StoredRecord], readers: Readers) -> _Read:
        return _read(embedder, batch, kinds, readers, side=side, stored=stored)

    def embed(sources: Sequence[StoredRecord]) -> None:
        for batch in ahead(chunks(sources, _MICRO_BATCH), prepare):
            done.embed(batch)
            progress.step()

    done = _Done(embedder=embedder, side=side, progress=progress)
    firsts, twins = _by_content(records, kinds)
    embed(list(firsts.values()))
    embedded = {record.id: place for place, record in enumerate(done.records)}
    place_of = {content: embedded.get(record.id) for content, record in firsts.items()}
    # An image may lie at two addresses, and be gone from the first of them only.
    embed([record for record, content in twins if place_of[content] is None])
    done.copy(
        [(record, place) for record, content in twins if (place := place_of[content]) is not None]
    )
    empty = np.empty((0, embedder.dim), np.float32)
    return Embeddings(
        records=done.records,
        vectors=np.concatenate(done.vectors) if done.vectors else empty,
        outcomes=done.outcomes,
    )


def _by_content(
    records: Sequence[StoredRecord], kinds: Kinds
) -> tuple[dict[bytes | int, StoredRecord], list[tuple[StoredRecord, bytes | int]]]:
    """The first record of each content, and the other records with their contents."""
    firsts: dict[bytes | int, StoredRecord] = {}
    twins: list[tuple[StoredRecord, bytes | int]] = []
    for record in records:
        # Without anything to see it is a case of its own.
        content = record.hashes.of(kinds) or record.id
        if firsts.setdefault(content, record) is not record:
            twins.append((record, content))
    return firsts, twins


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """A micro-batch, read; bad records are already left out."""

    records: list[tuple[StoredRecord, ItemContent]]
    #: All of them; why they cannot be prepared together; None where no record is left.
    prepared: PreparedContents | InputError | None
    failed: list[Outcome]


def _read(
    embedder: Embedder,
    batch: Sequence[StoredRecord],
    kinds: Kinds,
    readers: Readers,
    *,
    side: Side,
    stored: StoredTokens,
) -> _Read:
    """Read and prepare a micro-batch; arguments as `embed_records`."""
    contents = read_contents(
        batch, kinds, readers, embedder.prepare_image, partial(stored.read, side)
    )
    pairs = list(zip(batch, contents, strict=True))
    good = [(record, content) for record, content in pairs if isinstance(content, ItemContent)]
    return _Read(
        records=good,
        prepared=prepared(partial(embedder.prepare, side=side), [content for _, content in good]),
        failed=[
            Outcome.of_error(record.external_id, content)
            for record, content in pairs
            if isinstance(content, InputError)
        ],
    )


@dataclass(slots=True, kw_only=True)
class _Done:
    """The results of the micro-batches so far."""

    embedder: Embedder
    side: Side
    progress: Progress
    records: list[StoredRecord] = field(default_factory=list)
    vectors: list[NDArray[np.float32]] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    def copy(self, twins: Sequence[tuple[StoredRecord, int]]) -> None:
        """Give records the vector of an equal one, by its place, and what was noted of it."""
        if not twins:
            return
        noted: dict[str, list[Outcome]] = {}
        for outcome in self.outcomes:
            noted.setdefault(outcome.subject_id, []).append(outcome)
        for record, place in twins:
            notices = noted.get(self.records[place].external_id, [])
            self.outcomes += [replace(notice, subject_id=record.external_id) for notice in notices]
        self.vectors = [np.concatenate(self.vectors)]
        self.vectors.append(self.vectors[0][[place for _, place in twins]])
        self.records += [record for record, _ in twins]

    def embed(self, batch: _Read) -> None:
        """Embed a micro-batch; where one record spoils it, its records one by one."""
        self.outcomes += batch.failed
        if batch.prepared is None:
            return
        try:
            if isinstance(batch.prepared, InputError):
                raise batch.prepared
            embedded = self.embedder.embed(batch.prepared)
        except InputError as error:
            if len(batch.records) == 1:
                ((record, _),) = batch.records
                self.outcomes.append(Outcome.of_error(record.external_id, error))
                return
            for record, content in batch.records:
                single = prepared(partial(self.embedder.prepare, side=self.side), [content])
                self.embed(_Read(records=[(record, content)], prepared=single, failed=[]))
                self.progress.step()
            return
        records = [record for record, _ in batch.records]
        self.records += records
        self.vectors.append(embedded.vectors)
        self.outcomes += [
            Outcome.notice(records[notice.position].external_id, notice.reason, notice.detail)
            for notice in embedded.notices
        ]


def _key(record: StoredRecord, kinds: Kinds, fingerprint: str) -> str:
    content = record.hashes.of(kinds)
    assert content is not None
    return embedding_key(record.external_id, content, fingerprint)
