"""Answer queries from their best results: both read ahead, a few answers generated at once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from nightshift.models.answer import Answerer, Question
from nightshift.schema.errors import InputError
from nightshift.schema.messages import BlockPayload
from nightshift.schema.params import RerankParams, kinds_from_text
from nightshift.schema.states import SubjectKind
from nightshift.scoring.answering import MAX_ANSWER_TOKENS, MAX_RESULTS, PROMPT_VERSION
from nightshift.stores.catalog.contents import StoredRecord, load_items, load_queries
from nightshift.stores.ledger.claims import Claim
from nightshift.stores.ledger.run_types import RerankRun
from nightshift.stores.results.answers import AnswerRow, best_items, write_answers
from nightshift.workers.contents import Readers, ahead, chunks, read_content
from nightshift.workers.failures import Outcome, record_outcomes
from nightshift.workers.lease_renewal import Progress
from nightshift.workers.session import WorkerSession
from nightshift.workers.stored_tokens import StoredTokens

__all__ = ["do_answer"]

_BATCH_SIZE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class _ReadQuery:
    """A query and its results, read."""

    record: StoredRecord
    shown: tuple[int, ...]
    question: Question


def do_answer(
    session: WorkerSession,
    claim: Claim[RerankRun, BlockPayload],
    progress: Progress,
    answerer: Answerer,
) -> None:
    """Answer the job's queries and commit the answers with the job."""
    run, ids = claim.run, claim.payload.ids
    params = run.params
    stored = StoredTokens.of_answers(session.database, run)
    with session.database.begin() as connection:
        best = best_items(connection, run.id, ids, MAX_RESULTS)
        queries = load_queries(connection, ids)
        shown_ids = sorted({i for item_ids in best.values() for i in item_ids})
        items = load_items(connection, shown_ids, revision=run.revision)
    stored.locate({"query": queries.values(), "candidate": items.values()})

    def read(query_ids: Sequence[int], readers: Readers) -> list[_ReadQuery | Outcome]:
        def read_one(query_id: int) -> _ReadQuery | Outcome:
            record = queries[query_id]
            try:
                return _read(record, best[query_id], items, params, readers, answerer, stored)
            except InputError as error:
                return Outcome.of_error(record.external_id, error)

        return list(readers.fetching.map(read_one, query_ids))

    rows: list[AnswerRow] = []
    outcomes: list[Outcome] = []
    present = [query_id for query_id in ids if query_id in queries and query_id in best]
    for batch in ahead(chunks(present, _BATCH_SIZE), read):
        outcomes += [entry for entry in batch if isinstance(entry, Outcome)]
        readable = [entry for entry in batch if isinstance(entry, _ReadQuery)]
        for answer in _answers(answerer, run, readable):
            if isinstance(answer, Outcome):
                outcomes.append(answer)
            else:
                rows.append(answer)
        progress.step()
    with session.finish(claim, n_failed=len(outcomes)) as connection:
        write_answers(connection, rows, session.load_id)
        record_outcomes(connection, run.id, claim.stage, SubjectKind.QUERY, outcomes)
        damaged = stored.damaged.values()
        record_outcomes(connection, run.id, claim.stage, SubjectKind.JOB, damaged)


def _read(
    record: StoredRecord,
    best: tuple[int, ...],
    items: Mapping[int, StoredRecord],
    params: RerankParams,
    readers: Readers,
    answerer: Answerer,
    stored: StoredTokens,
) -> _ReadQuery:
    item_kinds = kinds_from_text(params.item_parts)
    return _ReadQuery(
        record=record,
        shown=best,
        question=Question(
            query=read_content(
                record,
                kinds_from_text(params.query_parts),
                readers,
                answerer.prepare_image,
                partial(stored.read, "query"),
            ),
            results=tuple(
                read_content(
                    items[item_id],
                    item_kinds,
                    readers,
                    answerer.prepare_image,
                    partial(stored.read, "candidate"),
                )
                for item_id in best
            ),
        ),
    )


def _answers(
    answerer: Answerer, run: RerankRun, queries: Sequence[_ReadQuery]
) -> Iterator[AnswerRow | Outcome]:
    answers = answerer.answer([query.question for query in queries])
    for query, answer in zip(queries, answers, strict=True):
        if isinstance(answer, InputError):
            yield Outcome.of_error(query.record.external_id, answer)
            continue
        yield AnswerRow(
            run_id=run.id,
            query_id=query.record.id,
            text=answer.text,
            shown=query.shown,
            cited=tuple(query.shown[place] for place in answer.cited),
            n_tokens=answer.n_tokens,
            ended=answer.ended,
            answerer={
                "scorer": run.scorer,
                "scorer_fingerprint": run.scorer_fingerprint,
                "wording": PROMPT_VERSION,
                "top": MAX_RESULTS,
                "max_tokens": MAX_ANSWER_TOKENS,
            },
        )
