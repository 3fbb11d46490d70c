"""Coarse search for a block of queries: embed them, search, keep the live hits."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nightshift.schema.errors import NotFoundError, ServiceUnavailableError
from nightshift.schema.runs import BlockPayload, RunParams, kinds_from_text
from nightshift.schema.states import SubjectKind
from nightshift.stores.contents import load_records
from nightshift.stores.indexes import live_keys
from nightshift.stores.leases import hold_writer
from nightshift.stores.ledger import Claim
from nightshift.stores.milvus import Hit
from nightshift.stores.results_write import CandidateRow, write_candidates
from nightshift.stores.runs import RunRow
from nightshift.workers.contents import chunks
from nightshift.workers.embed import embed_records
from nightshift.workers.failures import Outcome, record_outcomes
from nightshift.workers.lost_collection import restore_for
from nightshift.workers.progress import Progress
from nightshift.workers.session import WorkerSession
from nightshift.workers.stored_tokens import StoredTokens, codec_of_index

__all__ = ["do_search"]

_SEARCH_BATCH = 64
_MAX_LIMIT = 16384


def do_search(session: WorkerSession, run: RunRow, claim: Claim, progress: Progress) -> None:
    """Find the `top_k` live items nearest to each query of the job."""
    ids = BlockPayload.model_validate(claim.payload).ids
    params = RunParams.model_validate(run.params)
    codec = codec_of_index(session.database, run)
    embedder = session.models.embedder(run.embedder, run.embedder_fingerprint, codec)
    stored = StoredTokens.of_index(session.database, run)
    kinds = kinds_from_text(params.query_parts)
    with session.database.begin() as connection:
        records = load_records(connection, "query", ids)
    present = [records[one] for one in ids if one in records]
    queries = embed_records(embedder, present, kinds, progress, role="query", stored=stored)
    rows: list[CandidateRow] = []
    outcomes = list(queries.outcomes)
    for batch in chunks(range(len(queries.records)), _SEARCH_BATCH):
        found = _live_hits(session, run, queries.vectors[list(batch)], params.top_k, progress)
        for position, hits in zip(batch, found, strict=True):
            query = queries.records[position]
            if not hits:
                outcomes.append(_nothing_to_find(query.external_id))
            rows += [
                CandidateRow(
                    run_id=run.id,
                    query_id=query.id,
                    item_id=item_id,
                    coarse_rank=rank,
                    coarse_score=score,
                )
                for rank, (item_id, score) in enumerate(hits, 1)
            ]
        progress.step()
    n_failed = sum(outcome.fatal for outcome in outcomes)
    with session.ledger.finish(claim, n_failed=n_failed) as connection:
        write_candidates(connection, rows)
        record_outcomes(connection, run.id, claim.stage, SubjectKind.QUERY, outcomes)
        damaged = stored.damaged.values()
        record_outcomes(connection, run.id, claim.stage, SubjectKind.JOB, damaged)


def _nothing_to_find(query: str) -> Outcome:
    return Outcome(
        subject_id=query,
        reason="no_candidates",
        message="the index holds no live item: all are gone, or lost the part that it is made of; "
        "import the catalogue and build the index again",
        fatal=True,
    )


def _live_hits(
    session: WorkerSession,
    run: RunRow,
    vectors: NDArray[np.float32],
    top_k: int,
    progress: Progress,
) -> Sequence[list[tuple[int, float]]]:
    """(item id, cosine) of the best `top_k` live items of each query; equal scores by item id.

    Orphans (vectors of changed or removed items, or of a late zombie) are dropped, so the search
    asks for more than it needs, and again for twice as many where that was not enough.
    """
    limit = top_k + max(8, top_k // 4)
    while True:
        limit = min(limit, _MAX_LIMIT)
        found = _search(session, run, vectors, limit, progress)
        keys = sorted({hit.key for hits in found for hit in hits})
        with session.database.begin() as connection:
            live = live_keys(connection, run.index_id, keys)
        ranked = [
            sorted(
                ((live[hit.key], hit.score) for hit in hits if hit.key in live),
                key=lambda hit: (-hit[1], hit[0]),
            )[:top_k]
            for hits in found
        ]
        exhausted = limit >= _MAX_LIMIT or all(len(hits) < limit for hits in found)
        if exhausted or all(len(hits) == top_k for hits in ranked):
            return ranked
        limit *= 2


def _search(
    session: WorkerSession,
    run: RunRow,
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
