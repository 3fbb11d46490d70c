"""Coarse search for a block of queries: embed them, search, keep the live hits."""

from collections.abc import Sequence
from math import inf

import numpy as np
from numpy.typing import NDArray

from nightshift.models.embedders.protocol import Embedder
from nightshift.schema.errors import NotFoundError, ServiceUnavailableError
from nightshift.schema.messages import BlockPayload
from nightshift.schema.params import kinds_from_text
from nightshift.schema.states import SubjectKind
from nightshift.stores.catalog.contents import load_queries
from nightshift.stores.index.indexes import LiveItem, live_items
from nightshift.stores.index.milvus import MAX_LIMIT, TIE, Hit
from nightshift.stores.index.writer import hold_writer
from nightshift.stores.ledger.claims import Claim
from nightshift.stores.ledger.run_types import RerankRun
from nightshift.stores.results.writes import CandidateRow, write_candidates
from nightshift.workers.contents import chunks
from nightshift.workers.embed import embed_records
from nightshift.workers.failures import Outcome, record_outcomes
from nightshift.workers.lease_renewal import Progress
from nightshift.workers.lost_collection import restore_for
from nightshift.workers.session import WorkerSession
from nightshift.workers.stored_tokens import StoredTokens

__all__ = ["do_search", "ranked"]

_SEARCH_BATCH = 64


def do_search(
    session: WorkerSession,
    claim: Claim[RerankRun, BlockPayload],
    progress: Progress,
    embedder: Embedder,
) -> None:
    """Find the `top_k` live items nearest to each query of the job."""
    run, ids = claim.run, claim.payload.ids
    params = run.params
    stored = StoredTokens.of_index(session.database, run)
    kinds = kinds_from_text(params.query_parts)
    with session.database.begin() as connection:
        records = load_queries(connection, ids)
    present = [records[query_id] for query_id in ids if query_id in records]
    queries = embed_records(embedder, present, kinds, progress, side="query", stored=stored)
    # Equal queries have equal lists: one of them is searched for.
    contents = [record.hashes.of(kinds) or b"" for record in queries.records]
    firsts = {content: place for place, content in reversed(list(enumerate(contents)))}
    hits_of: dict[bytes, list[tuple[LiveItem, float]]] = {}
    for batch in chunks(sorted(firsts.values()), _SEARCH_BATCH):
        live = _live_hits(session, run, queries.vectors[list(batch)], params.top_k, progress)
        hits_of.update(zip((contents[place] for place in batch), live, strict=True))
        progress.step()
    rows = [
        CandidateRow(
            query_id=record.id,
            item_id=item.id,
            content_id=item.content_id,
            coarse_rank=rank,
            coarse_score=score,
        )
        for record, content in zip(queries.records, contents, strict=True)
        for rank, (item, score) in enumerate(hits_of[content], 1)
    ]
    outcomes = [
        *queries.outcomes,
        *(
            _nothing_to_find(record.external_id)
            for record, content in zip(queries.records, contents, strict=True)
            if not hits_of[content]
        ),
    ]
    n_failed = sum(outcome.fatal for outcome in outcomes)
    with session.finish(claim, n_failed=n_failed) as connection:
        write_candidates(connection, run, rows, session.load_id)
        record_outcomes(connection, run.id, claim.stage, SubjectKind.QUERY, outcomes)
        damaged = stored.damaged.values()
        record_outcomes(connection, run.id, claim.stage, SubjectKind.JOB, damaged)


def _nothing_to_find(query: str) -> Outcome:
    return Outcome(
        subject_id=query,
        reason="no_candidates",
        message="the index holds no item as the revision of the run has it: import the catalogue "
        "and build the index again",
        fatal=True,
    )


def _live_hits(
    session: WorkerSession,
    run: RerankRun,
    vectors: NDArray[np.float32],
    top_k: int,
    progress: Progress,
) -> Sequence[list[tuple[LiveItem, float]]]:
    """(item, cosine) of the best `top_k` live items of each query, in the order of `ranked`.

    Stale vectors (of other contents than the revision has, or of a late zombie) are dropped, so the
    search asks for more than it needs, and again for twice as many where that was not enough.
    """
    limit = top_k + max(8, top_k // 4)
    while True:
        limit = min(limit, MAX_LIMIT)
        hits_by_query = _search(session, run, vectors, limit, progress)
        keys = sorted({hit.key for hits in hits_by_query for hit in hits})
        with session.database.begin() as connection:
            live = live_items(connection, run.index_id, keys, revision=run.revision)
        best = [
            ranked([(live[hit.key], hit.score) for hit in hits if hit.key in live])[:top_k]
            for hits in hits_by_query
        ]
        exhausted = limit >= MAX_LIMIT or all(len(hits) < limit for hits in hits_by_query)
        if exhausted or all(len(hits) == top_k for hits in best):
            return best
        limit *= 2


def ranked(hits: Sequence[tuple[LiveItem, float]]) -> list[tuple[LiveItem, float]]:
    """Items with their similarity, nearest first, in an order that no import or batch changes.

    Hits that are as near but for rounding have the similarity of the nearest of them, and equal
    contents always do. They go by external id, equal contents side by side.
    """
    nearest: dict[bytes, float] = {}
    for item, score in hits:
        nearest[item.content] = max(score, nearest.get(item.content, score))
    by_score = sorted(hits, key=lambda hit: -nearest[hit[0].content])
    tied: list[tuple[float, list[LiveItem]]] = []
    last = inf
    for item, _ in by_score:
        score = nearest[item.content]
        if last - score > TIE or not tied:
            tied.append((score, []))
        tied[-1][1].append(item)
        last = score
    return [(item, score) for score, items in tied for item in _in_order(items)]


def _in_order(items: Sequence[LiveItem]) -> list[LiveItem]:
    first: dict[bytes, str] = {}
    for item in items:
        first[item.content] = min(item.external_id, first.get(item.content, item.external_id))
    return sorted(items, key=lambda item: (first[item.content], item.external_id))


def _search(
    session: WorkerSession,
    run: RerankRun,
    vectors: NDArray[np.float32],
    limit: int,
    progress: Progress,
) -> list[list[Hit]]:
    collection = run.collection
    try:
        return session.vectors.search(collection, vectors, limit, consistency="Strong")
    except (ServiceUnavailableError, NotFoundError) as error:
        # A kill may have torn the index, and no search succeeds until a writer has mended it.
        with hold_writer(session.database, session.vectors, session.worker_id, progress.step):
            if isinstance(error, NotFoundError):
                # What this search misses is seen after the stage, which is then done again.
                restore_for(session, run)
            session.vectors.load(collection)
        return session.vectors.search(collection, vectors, limit, consistency="Strong")
