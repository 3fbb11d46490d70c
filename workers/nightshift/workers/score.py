"""Score groups of pairs: read both sides ahead, one forward a micro-batch, keep raw log-odds."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

from nightshift.models.content import ItemContent
from nightshift.models.scorer import PairGroup, PairReading, PreparedGroups, Scorer
from nightshift.schema.errors import InputError
from nightshift.schema.identity import list_hash, pair_key
from nightshift.schema.runs import Kinds, RunParams, ScorePayload, kinds_from_text
from nightshift.schema.states import SubjectKind, TallyName
from nightshift.scoring.log_odds import parse_number
from nightshift.scoring.prompts import Side
from nightshift.stores.contents import StoredRecord, load_records
from nightshift.stores.ledger import Claim
from nightshift.stores.results_write import PairScoreRow, write_scores, write_tie_entropies
from nightshift.stores.retries import record_notice_of_run
from nightshift.stores.runs import RunRow
from nightshift.stores.tallies import write_tallies
from nightshift.workers.contents import Stored, ahead, chunks, read_contents
from nightshift.workers.failures import Outcome, record_outcomes
from nightshift.workers.progress import Progress
from nightshift.workers.session import WorkerSession
from nightshift.workers.stored_tokens import StoredTokens, codec_of_run
from nightshift.workers.suspicion import refuse_equal_scores

__all__ = ["do_score", "is_compared", "micro_batches"]

# Pairs that are read and scored at a time, unless one group has more.
_MICRO_BATCH = 64
# Pairs of one group that are: as many pictures may lie in memory, and as many again, read ahead.
_MOST_OF_GROUP = 128

_Groups = list[tuple[int, tuple[int, ...]]]
_Pair = tuple[StoredRecord, StoredRecord]
_Pairs = Sequence[_Pair]


def do_score(session: WorkerSession, run: RunRow, claim: Claim, progress: Progress) -> None:
    """Score the job's pairs and commit them with the job."""
    assert run.scorer is not None
    assert run.scorer_fingerprint is not None
    payload = ScorePayload.model_validate(claim.payload)
    params = RunParams.model_validate(run.params)
    pairs = payload.pairs()
    with session.database.begin() as connection:
        queries = load_records(connection, "query", sorted({query for query, _ in pairs}))
        items = load_records(connection, "item", sorted({item for _, item in pairs}))
    codec = codec_of_run(session.database, run, params)
    scorer = session.models.scorer(run.scorer, params.scorer, run.scorer_fingerprint, codec)
    if why := session.models.why_singly(params.scorer):
        # Not with the results: jobs that say it for the first time would wait for each other.
        with session.database.begin() as connection:
            record_notice_of_run(
                connection,
                run.id,
                stage=claim.stage.value,
                about="every pair",
                reason="not_packed",
                message=f"pairs are scored one by one, not packed: {why}",
            )
    stored = StoredTokens.of_run(session.database, run, params)
    stored.locate({"query": queries.values(), "candidate": items.values()})
    ties = payload.asks == "ties"
    work = _Work(
        run_id=run.id,
        fingerprint=run.scorer_fingerprint,
        scorer=scorer.for_ties() if ties else scorer,
        stored=stored,
        shared_side=payload.shared_side,
        queries=queries,
        items=items,
        query_kinds=kinds_from_text(params.query_parts),
        item_kinds=kinds_from_text(params.item_parts),
        compared=frozenset(
            query.id
            for query in queries.values()
            if not ties and is_compared(query, params.compare)
        ),
        lists=payload.lists,
    )
    before = session.models.work
    for batch in ahead(micro_batches(payload.groups), work.read):
        work.score(batch)
        progress.step()
    done = session.models.work.since(before)
    refuse_equal_scores(work.rows)
    outcomes = work.outcomes
    if ties:
        # The pairs have their scores: one whose tie stays open loses nothing else.
        outcomes = [replace(outcome, fatal=False) for outcome in outcomes]
    with session.ledger.finish(claim, n_failed=sum(one.fatal for one in outcomes)) as connection:
        if ties:
            write_tie_entropies(connection, run.id, work.rows)
        else:
            write_scores(connection, work.rows)
        told = {
            TallyName.PAIRS: len(work.rows),
            TallyName.PREFIXES: done.prefixes,
            TallyName.PICTURES: done.pictures,
        }
        write_tallies(connection, run.id, told)
        record_outcomes(connection, run.id, claim.stage, SubjectKind.PAIR, outcomes)
        damaged = stored.damaged.values()
        record_outcomes(connection, run.id, claim.stage, SubjectKind.JOB, damaged)


def micro_batches(
    groups: Sequence[tuple[int, tuple[int, ...]]],
    size: int = _MICRO_BATCH,
    most: int = _MOST_OF_GROUP,
) -> Iterator[_Groups]:
    """Put groups together into batches; a pure function of the job.

    Args:
        groups: (id on the shared side, ids on the other side).
        size: Pairs of a batch at the most, if it holds more than one group.
        most: Pairs of a group that stay together: what they share is then computed once.

    Yields:
        At least one pair each.
    """
    batch: _Groups = []
    n_pairs = 0
    for shared, others in groups:
        for part in chunks(others, most):
            if batch and n_pairs + len(part) > size:
                yield batch
                batch, n_pairs = [], 0
            batch.append((shared, tuple(part)))
            n_pairs += len(part)
    if batch:
        yield batch


def is_compared(query: StoredRecord, share: float) -> bool:
    """Whether a query is in the sample whose pairs are scored without the enhancement too.

    Decided by its content, so that every job of every night decides alike.
    """
    return int.from_bytes(query.hashes.both[:4], "big") < share * 2**32


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """A micro-batch, read; `pairs` are aligned with `groups`, bad ones already left out."""

    pairs: list[list[tuple[StoredRecord, StoredRecord]]]
    groups: list[PairGroup]
    prepared: PreparedGroups | None
    failed: list[Outcome]


@dataclass(slots=True, kw_only=True)
class _Work:
    """One job's scoring: what it needs and what it found."""

    run_id: int
    fingerprint: str
    scorer: Scorer
    stored: StoredTokens
    shared_side: Side
    queries: dict[int, StoredRecord]
    items: dict[int, StoredRecord]
    query_kinds: Kinds
    item_kinds: Kinds
    #: Queries whose pairs are scored without the enhancement too.
    compared: frozenset[int]
    #: Whether groups are lists, scored as a whole.
    lists: bool
    rows: list[PairScoreRow] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    def read(self, batch: _Groups, pool: ThreadPoolExecutor) -> _Batch:
        """Fetch, decode and tokenise a micro-batch; runs ahead of the model, in a thread."""
        by_query = self.shared_side == "query"
        shared_records, other_records = (
            (self.queries, self.items) if by_query else (self.items, self.queries)
        )
        shared_kinds, other_kinds = (
            (self.query_kinds, self.item_kinds) if by_query else (self.item_kinds, self.query_kinds)
        )
        other_side: Side = "candidate" if by_query else "query"
        shared = _read_all(
            [one for one, _ in batch],
            shared_records,
            shared_kinds,
            pool,
            partial(self.stored.read, self.shared_side),
        )
        other_ids = [one for _, others in batch for one in others]
        others = _read_all(
            other_ids, other_records, other_kinds, pool, partial(self.stored.read, other_side)
        )
        pairs: list[list[tuple[StoredRecord, StoredRecord]]] = []
        groups: list[PairGroup] = []
        failed: list[Outcome] = []
        for shared_id, ids in batch:
            first = shared.get(shared_id)
            kept: list[ItemContent] = []
            kept_pairs: list[tuple[StoredRecord, StoredRecord]] = []
            for other_id in ids:
                second = others.get(other_id)
                if first is None or second is None:
                    continue  # deleted since it was planned: nothing to score
                query_id, item_id = (shared_id, other_id) if by_query else (other_id, shared_id)
                pair = (self.queries[query_id], self.items[item_id])
                error = next((c for c in (first, second) if isinstance(c, InputError)), None)
                if error is not None:
                    failed.append(Outcome.of_error(_name(pair), error))
                elif isinstance(second, ItemContent):
                    kept.append(second)
                    kept_pairs.append(pair)
            if kept and isinstance(first, ItemContent):
                groups.append(
                    PairGroup(shared_side=self.shared_side, shared=first, others=tuple(kept))
                )
                pairs.append(kept_pairs)
        return _Batch(pairs=pairs, groups=groups, prepared=self._prepare(groups), failed=failed)

    def score(self, batch: _Batch) -> None:
        """Run the model over a micro-batch; where a pair or list spoils it, score them singly."""
        self.outcomes += batch.failed
        if not batch.groups:
            return
        try:
            readings = self.scorer.score(batch.prepared or self.scorer.prepare(batch.groups))
        except InputError:
            self._score_singly(batch)
            return
        plain = self._plain_margins(batch, readings)
        for pairs, of_group in zip(batch.pairs, readings, strict=True):
            self._keep(pairs, of_group, plain)

    def _plain_margins(
        self, batch: _Batch, readings: Sequence[Sequence[PairReading]]
    ) -> dict[tuple[int, int], float]:
        """Margins without the enhancement, by (query id, item id), of fired and compared pairs."""
        margins: dict[tuple[int, int], float] = {}
        chosen: list[PairGroup] = []
        keys: list[list[tuple[int, int]]] = []
        for pairs, group, of_group in zip(batch.pairs, batch.groups, readings, strict=True):
            wanted = [
                (pair, other)
                for pair, other, reading in zip(pairs, group.others, of_group, strict=True)
                if reading.trace.fired and pair[0].id in self.compared
            ]
            if wanted:
                chosen.append(replace(group, others=tuple(other for _, other in wanted)))
                keys.append([(query.id, item.id) for (query, item), _ in wanted])
        if chosen:
            plain = self.scorer.plain()
            plain_readings = plain.score(plain.prepare(chosen))
            for group_keys, found in zip(keys, plain_readings, strict=True):
                margins |= {key: one.margin for key, one in zip(group_keys, found, strict=True)}
        return margins

    def _prepare(self, groups: list[PairGroup]) -> PreparedGroups | None:
        if not groups:
            return None
        try:
            return self.scorer.prepare(groups)
        except InputError:
            return None

    def _score_singly(self, batch: _Batch) -> None:
        for pairs, group in zip(batch.pairs, batch.groups, strict=True):
            for some, alone in self._singly(pairs, group):
                try:
                    (readings,) = self.scorer.score(self.scorer.prepare([alone]))
                except InputError as error:
                    self.outcomes += [Outcome.of_error(_name(pair), error) for pair in some]
                else:
                    self._keep(some, readings, {})

    def _singly(
        self, pairs: Sequence[_Pair], group: PairGroup
    ) -> Iterator[tuple[_Pairs, PairGroup]]:
        """What a group can be scored in on its own: its pairs, or itself if it is a list."""
        if self.lists:
            yield pairs, group
            return
        for pair, other in zip(pairs, group.others, strict=True):
            yield [pair], replace(group, others=(other,))

    def _keep(
        self,
        pairs: Sequence[tuple[StoredRecord, StoredRecord]],
        readings: Sequence[PairReading],
        plain: Mapping[tuple[int, int], float],
    ) -> None:
        list_content = b""
        if self.lists:
            list_content = list_hash(_seen(item, self.item_kinds) for _, item in pairs)
        for (query, item), reading in zip(pairs, readings, strict=True):
            query_content = _seen(query, self.query_kinds)
            item_content = _seen(item, self.item_kinds)
            if reading.written is not None and parse_number(reading.written) is None:
                self.outcomes.append(
                    Outcome.notice(
                        _name((query, item)),
                        "answer_unreadable",
                        f"the model wrote {reading.written!r} where a number from 0 to 1 was asked "
                        "for; it counts as 0",
                    )
                )
            self.rows.append(
                PairScoreRow(
                    run_id=self.run_id,
                    query_id=query.id,
                    item_id=item.id,
                    pair_key=pair_key(self.fingerprint, query_content, item_content, list_content),
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


def _read_all(
    ids: Sequence[int],
    records: dict[int, StoredRecord],
    kinds: Kinds,
    pool: ThreadPoolExecutor,
    stored: Stored,
) -> dict[int, ItemContent | InputError]:
    present = [records[one] for one in dict.fromkeys(ids) if one in records]
    contents = read_contents(present, kinds, pool, stored)
    return {record.id: content for record, content in zip(present, contents, strict=True)}


def _seen(record: StoredRecord, kinds: Kinds) -> bytes:
    """Digest of what the scorer sees of a record that it was shown."""
    content = record.hashes.of(kinds)
    assert content is not None
    return content


def _name(pair: tuple[StoredRecord, StoredRecord]) -> str:
    query, item = pair
    return f"{query.external_id} → {item.external_id}"
