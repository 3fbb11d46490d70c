"""Groups of pairs on their way to the scorer: cut into micro-batches, then read and prepared."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from nightshift.models.engine.protocol import PreparedGroups
from nightshift.models.inputs.content import ItemContent
from nightshift.models.scorers.protocol import PairGroup, Scorer
from nightshift.schema.errors import InputError
from nightshift.schema.params import Kinds
from nightshift.scoring.prompts import Side
from nightshift.stores.catalog.contents import StoredRecord
from nightshift.workers.contents import Readers, chunks, prepared, read_contents
from nightshift.workers.failures import Outcome
from nightshift.workers.stored_tokens import StoredTokens

__all__ = [
    "GroupReader",
    "Groups",
    "Pair",
    "ReadGroups",
    "micro_batches",
    "narrow",
    "pair_name",
]

# Pairs that are read and scored at a time, unless one group has more.
_MICRO_BATCH = 64
# Pairs of one group that are: as many images lie in memory as the model takes them, and two
# batches are read ahead.
_MAX_OF_GROUP = 128

#: (id on the shared side, ids on the other side).
Groups = Sequence[tuple[int, tuple[int, ...]]]
#: Query and item.
Pair = tuple[StoredRecord, StoredRecord]


def micro_batches(
    groups: Groups, size: int = _MICRO_BATCH, max_of_group: int = _MAX_OF_GROUP
) -> Iterator[Groups]:
    """Put groups together into batches; a pure function of the job.

    Args:
        groups: Of the job.
        size: Pairs of a batch at the most, if it holds more than one group.
        max_of_group: Pairs of a group that stay together: what they share is then computed once.

    Yields:
        At least one pair each.
    """
    batch: list[tuple[int, tuple[int, ...]]] = []
    n_pairs = 0
    for shared, others in groups:
        for part in chunks(others, max_of_group):
            if batch and n_pairs + len(part) > size:
                yield batch
                batch, n_pairs = [], 0
            batch.append((shared, tuple(part)))
            n_pairs += len(part)
    if batch:
        yield batch


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadGroups:
    """A micro-batch, read; bad pairs are already left out."""

    #: Each group's pairs, in the scorer's order.
    pairs: list[list[Pair]]
    groups: list[PairGroup]
    #: All of them, for the scorer; why they cannot be prepared together; None where none is left.
    prepared: PreparedGroups | InputError | None
    failed: list[Outcome]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupReader:
    """Reads the pairs of one job."""

    scorer: Scorer
    stored: StoredTokens
    shared_side: Side
    queries: Mapping[int, StoredRecord]
    items: Mapping[int, StoredRecord]
    query_kinds: Kinds
    item_kinds: Kinds

    def read(self, batch: Groups, readers: Readers) -> ReadGroups:
        """Fetch, decode and tokenise a micro-batch; runs ahead of the model, in a thread."""
        shared = self._contents(self.shared_side, [shared_id for shared_id, _ in batch], readers)
        other_side: Side = "candidate" if self.shared_side == "query" else "query"
        others = self._contents(other_side, [i for _, ids in batch for i in ids], readers)
        pairs: list[list[Pair]] = []
        groups: list[PairGroup] = []
        failed: list[Outcome] = []
        for shared_id, ids in batch:
            first = shared.get(shared_id)
            kept: list[ItemContent] = []
            kept_pairs: list[Pair] = []
            for other_id in ids:
                second = others.get(other_id)
                if first is None or second is None:
                    continue  # deleted since it was planned: nothing to score
                pair = self._pair(shared_id, other_id)
                error = next((c for c in (first, second) if isinstance(c, InputError)), None)
                if error is not None:
                    failed.append(Outcome.of_error(pair_name(pair), error))
                elif isinstance(second, ItemContent):
                    kept.append(second)
                    kept_pairs.append(pair)
            if kept and isinstance(first, ItemContent):
                groups.append(
                    PairGroup(shared_side=self.shared_side, shared=first, others=tuple(kept))
                )
                pairs.append(kept_pairs)
        return ReadGroups(
            pairs=pairs,
            groups=groups,
            prepared=prepared(self.scorer.prepare, groups),
            failed=failed,
        )

    def _contents(
        self, side: Side, ids: Sequence[int], readers: Readers
    ) -> dict[int, ItemContent | InputError]:
        records, kinds = (
            (self.queries, self.query_kinds) if side == "query" else (self.items, self.item_kinds)
        )
        present = [records[id_] for id_ in dict.fromkeys(ids) if id_ in records]
        contents = read_contents(
            present, kinds, readers, self.scorer.prepare_image, partial(self.stored.read, side)
        )
        return {record.id: content for record, content in zip(present, contents, strict=True)}

    def _pair(self, shared_id: int, other_id: int) -> Pair:
        by_query = self.shared_side == "query"
        query_id, item_id = (shared_id, other_id) if by_query else (other_id, shared_id)
        return self.queries[query_id], self.items[item_id]


def narrow(
    pairs: Sequence[Pair], group: PairGroup, wanted: Callable[[Pair], bool]
) -> tuple[list[Pair], PairGroup]:
    """The group without the pairs that are not wanted; it may be empty."""
    kept = [(pair, other) for pair, other in zip(pairs, group.others, strict=True) if wanted(pair)]
    return [pair for pair, _ in kept], replace(group, others=tuple(other for _, other in kept))


def pair_name(pair: Pair) -> str:
    """The name of a pair in failures and notices."""
    query, item = pair
    return f"{query.external_id} → {item.external_id}"
