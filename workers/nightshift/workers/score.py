"""Score groups of pairs: read both sides ahead, one forward a micro-batch, keep raw log-odds."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from nightshift.models.scorers.protocol import PairGroup, PairReading, Scorer
from nightshift.schema.errors import InputError
from nightshift.schema.identity import list_hash, pair_key
from nightshift.schema.messages import ScorePayload
from nightshift.schema.params import Kinds, kinds_from_text
from nightshift.schema.states import SubjectKind, TallyName
from nightshift.scoring.log_odds import parse_number
from nightshift.stores.catalog.contents import StoredRecord, load_items, load_queries
from nightshift.stores.failures import record_notice_of_run
from nightshift.stores.ledger.claims import Claim
from nightshift.stores.ledger.counters import write_tallies
from nightshift.stores.ledger.run_types import RerankRun
from nightshift.stores.results.scores import PairScoreRow, write_scores, write_tie_entropies
from nightshift.workers.contents import ahead, prepared
from nightshift.workers.failures import Outcome, record_outcomes
from nightshift.workers.groups import (
    GroupReader,
    Pair,
    ReadGroups,
    micro_batches,
    narrow,
    pair_name,
)
from nightshift.workers.lease_renewal import Progress
from nightshift.workers.session import WorkerSession
from nightshift.workers.stored_tokens import StoredTokens
from nightshift.workers.suspicion import refuse_equal_scores

__all__ = ["Scores", "do_score", "is_compared"]

_Ids = tuple[int, int]


def do_score(
    session: WorkerSession,
    claim: Claim[RerankRun, ScorePayload],
    progress: Progress,
    scorer: Scorer,
) -> None:
    """Score the job's pairs and commit them with the job."""
    run, payload = claim.run, claim.payload
    params = run.params
    pairs = payload.pairs()
    with session.database.begin() as connection:
        queries = load_queries(connection, sorted({query for query, _ in pairs}))
        item_ids = sorted({item for _, item in pairs})
        items = load_items(connection, item_ids, revision=run.revision)
    _note_if_unbatched(session, claim)
    stored = StoredTokens.of_run(session.database, run)
    stored.locate({"query": queries.values(), "candidate": items.values()})
    ties = payload.asks == "ties"
    scorer = scorer.for_ties() if ties else scorer
    reader = GroupReader(
        scorer=scorer,
        stored=stored,
        shared_side=payload.shared_side,
        queries=queries,
        items=items,
        query_kinds=kinds_from_text(params.query_parts),
        item_kinds=kinds_from_text(params.item_parts),
    )
    scores = Scores(
        run=run,
        scorer=scorer,
        query_kinds=reader.query_kinds,
        item_kinds=reader.item_kinds,
        compared=frozenset() if ties else _compared_ids(queries.values(), params.compare),
        lists=payload.lists,
        progress=progress,
    )
    before = session.models.counters
    for batch in ahead(micro_batches(payload.groups), reader.read):
        scores.add(batch)
        progress.step()
    done = session.models.counters.since(before)
    refuse_equal_scores(scores.rows)
    outcomes = _as_notices(scores.outcomes) if ties else scores.outcomes
    with session.finish(claim, n_failed=sum(outcome.fatal for outcome in outcomes)) as connection:
        if ties:
            write_tie_entropies(connection, run, scores.rows)
        else:
            write_scores(connection, run, scores.rows, session.load_id)
        counts = {
            TallyName.PAIRS: len(scores.rows),
            TallyName.PREFIXES: done.prefixes,
            TallyName.PICTURES: done.images,
        }
        write_tallies(connection, run.id, counts)
        record_outcomes(connection, run.id, claim.stage, SubjectKind.PAIR, outcomes)
        damaged = stored.damaged.values()
        record_outcomes(connection, run.id, claim.stage, SubjectKind.JOB, damaged)


def is_compared(query: StoredRecord, share: float) -> bool:
    """True if a query is in the sample whose pairs are scored without the enhancement too.

    Decided by its content, so that every job of every night decides alike.
    """
    return int.from_bytes(query.hashes.both[:4], "big") < share * 2**32


def _as_notices(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Failures about ties: the pairs have their scores, and lose nothing but the tie's order."""
    return [replace(outcome, fatal=False) for outcome in outcomes]


def _compared_ids(queries: Iterable[StoredRecord], share: float) -> frozenset[int]:
    return frozenset(query.id for query in queries if is_compared(query, share))


@dataclass(slots=True, kw_only=True)
class Scores:
    """The results of one job's pairs so far: a row or a failure each."""

    run: RerankRun
    scorer: Scorer
    query_kinds: Kinds
    item_kinds: Kinds
    #: Queries whose pairs are scored without the enhancement too.
    compared: frozenset[int]
    #: Whether groups are lists, scored as a whole.
    lists: bool
    progress: Progress
    rows: list[PairScoreRow] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    def add(self, batch: ReadGroups) -> None:
        """Score a micro-batch; where one pair or list fails, score each by itself."""
        self.outcomes += batch.failed
        if batch.prepared is None:
            return
        try:
            self._score(batch)
        except InputError:
            for pairs, group in self._single_parts(batch):
                self._add_single(pairs, group)
                self.progress.step()

    def _add_single(self, pairs: list[Pair], group: PairGroup) -> None:
        single = prepared(self.scorer.prepare, [group])
        try:
            self._score(ReadGroups(pairs=[pairs], groups=[group], prepared=single, failed=[]))
        except InputError as error:
            self.outcomes += [Outcome.of_error(pair_name(pair), error) for pair in pairs]

    def _single_parts(self, batch: ReadGroups) -> Iterator[tuple[list[Pair], PairGroup]]:
        """Split groups as far as possible: into single pairs; a list stays together."""
        for pairs, group in zip(batch.pairs, batch.groups, strict=True):
            if self.lists:
                yield pairs, group
                continue
            for pair, other in zip(pairs, group.others, strict=True):
                yield [pair], replace(group, others=(other,))

    def _score(self, batch: ReadGroups) -> None:
        """Raises InputError, with nothing kept, where the pairs cannot all be scored."""
        if isinstance(batch.prepared, InputError):
            raise batch.prepared
        assert batch.prepared is not None
        readings = self.scorer.score(batch.prepared)
        plain = self._plain_margins(batch, readings)
        for pairs, of_group in zip(batch.pairs, readings, strict=True):
            self._keep(pairs, of_group, plain)

    def _plain_margins(
        self, batch: ReadGroups, readings: Sequence[Sequence[PairReading]]
    ) -> dict[_Ids, float]:
        """Margins without the enhancement of fired and compared pairs."""
        wanted = {
            _ids(pair)
            for pairs, of_group in zip(batch.pairs, readings, strict=True)
            for pair, reading in zip(pairs, of_group, strict=True)
            if reading.trace.fired and pair[0].id in self.compared
        }
        if not wanted:
            return {}
        narrowed = [
            narrow(pairs, group, lambda pair: _ids(pair) in wanted)
            for pairs, group in zip(batch.pairs, batch.groups, strict=True)
        ]
        some = [(pairs, group) for pairs, group in narrowed if pairs]
        scorer = self.scorer.plain()
        plain = scorer.score(scorer.prepare([group for _, group in some]))
        return {
            _ids(pair): reading.margin
            for (pairs, _), of_group in zip(some, plain, strict=True)
            for pair, reading in zip(pairs, of_group, strict=True)
        }

    def _keep(
        self,
        pairs: Sequence[Pair],
        readings: Sequence[PairReading],
        plain: Mapping[_Ids, float],
    ) -> None:
        list_content = b""
        if self.lists:
            list_content = list_hash(_content_of(item, self.item_kinds) for _, item in pairs)
        for (query, item), reading in zip(pairs, readings, strict=True):
            key = pair_key(
                self.run.scorer_fingerprint,
                _content_of(query, self.query_kinds),
                _content_of(item, self.item_kinds),
                list_content,
            )
            if reading.written is not None and parse_number(reading.written) is None:
                self.outcomes.append(
                    Outcome.notice(
                        pair_name((query, item)),
                        "answer_unreadable",
                        f"the model wrote {reading.written!r} where a number from 0 to 1 was asked "
                        "for; it counts as 0",
                    )
                )
            self.rows.append(
                PairScoreRow(
                    query_id=query.id,
                    item_id=item.id,
                    pair_key=key,
                    margin=reading.margin,
                    logit_positive=reading.logit_positive,
                    logit_negative=reading.logit_negative,
                    logsumexp=reading.logsumexp,
                    entropy=reading.entropy,
                    fired=reading.trace.fired,
                    fired_layer=reading.trace.layer,
                    uncertainty=reading.trace.uncertainty,
                    plain_margin=plain.get((query.id, item.id)),
                    written=reading.written,
                )
            )


def _note_if_unbatched(session: WorkerSession, claim: Claim[RerankRun, ScorePayload]) -> None:
    """Keep a notice of pairs that cannot be packed.

    Not with the results: jobs that say it for the first time would wait for each other.
    """
    if reason := session.models.unbatched_reason(claim.run.params.scorer):
        with session.database.begin() as connection:
            record_notice_of_run(
                connection,
                claim.run_id,
                stage=claim.stage.value,
                about="every pair",
                reason="not_packed",
                message=f"pairs are scored one by one, not packed: {reason}",
            )


def _content_of(record: StoredRecord, kinds: Kinds) -> bytes:
    """Digest of the parts of a record that the scorer was shown."""
    content = record.hashes.of(kinds)
    assert content is not None
    return content


def _ids(pair: Pair) -> _Ids:
    query, item = pair
    return query.id, item.id
