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
from nightshift.stores.catalog.contents import StoredRecord, load_records
from nightshift.stores.ledger.claims import Claim
from nightshift.stores.ledger.run_types import RerankRun
from nightshift.stores.results.answers import AnswerRow, best_items, write_answers
from nightshift.workers.contents import Readers, ahead, chunks, read_content
from nightshift.workers.failures import Outcome, record_outcomes
from nightshift.workers.progress import Progress
from nightshift.workers.session import WorkerSession
from nightshift.workers.stored_tokens import StoredTokens

__all__ = ["do_answer"]

_AT_ONCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
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
        queries = load_records(connection, "query", ids)
        items = load_records(connection, "item", sorted({i for of in best.values() for i in of}))
    stored.locate({"query": queries.values(), "candidate": items.values()})

    def read(some: Sequence[int], readers: Readers) -> list[_Asked | Outcome]:
        def read_one(query_id: int) -> _Asked | Outcome:
            record = queries[query_id]
            try:
                return _read(record, best[query_id], items, params, readers, answerer, stored)
            except InputError as error:
                return Outcome.of_error(record.external_id, error)

        return list(readers.fetching.map(read_one, some))

    rows: list[AnswerRow] = []
    outcomes: list[Outcome] = []
    present = [one for one in ids if one in queries and one in best]
    for some in ahead(chunks(present, _AT_ONCE), read):
        outcomes += [one for one in some if isinstance(one, Outcome)]
        for found in _answers(answerer, run, [one for one in some if isinstance(one, _Asked)]):
            if isinstance(found, Outcome):
                outcomes.append(found)
            else:
                rows.append(found)
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
) -> _Asked:
    # An item may have been removed since it was ranked.
    shown = tuple(one for one in best if one in items)
    item_kinds = kinds_from_text(params.item_parts)
    return _Asked(
        record=record,
        shown=shown,
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
                    items[one],
                    item_kinds,
                    readers,
                    answerer.prepare_image,
                    partial(stored.read, "candidate"),
                )
                for one in shown
            ),
        ),
    )


def _answers(
    answerer: Answerer, run: RerankRun, asked: Sequence[_Asked]
) -> Iterator[AnswerRow | Outcome]:
    answers = answerer.answer([one.question for one in asked])
    for one, answer in zip(asked, answers, strict=True):
        if isinstance(answer, InputError):
            yield Outcome.of_error(one.record.external_id, answer)
            continue
        yield AnswerRow(
            run_id=run.id,
            query_id=one.record.id,
            text=answer.text,
            shown=one.shown,
            cited=tuple(one.shown[place] for place in answer.cited),
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
