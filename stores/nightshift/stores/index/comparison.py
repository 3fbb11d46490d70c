"""Compare the keys that Milvus has with the live ones in Postgres: Milvus may lose vectors.

What was verified stays verified (decision 0021). Pages of keys are read, never all at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from nightshift.schema.errors import ServiceUnavailableError
from nightshift.stores.index.indexes import IndexRow
from nightshift.stores.index.key_pages import key_pages
from nightshift.stores.index.milvus import ServerState, VectorStore
from nightshift.stores.index.verified_ranges import (
    N_RANGES,
    LiveKeys,
    VerifiedRange,
    keep_verified,
    live_between,
    live_by_range,
    range_of,
    verified_ranges,
)
from nightshift.stores.postgres.database import Database

__all__ = ["KeyDifferences", "compare"]

#: A server that does not tell when it started may have been restarted: for so long it is trusted.
_TRUST_S = 86_400.0
#: In a larger collection 16 counts take the place of 256 where only losses are possible.
_COUNT_ALL_UP_TO = 200_000
_DIGITS = "0123456789abcdef"
_ALL = frozenset(range(N_RANGES))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDifferences:
    """The differences between the keys in Milvus and the live ones."""

    #: Live keys that Milvus does not have, sorted.
    lost: list[str] = field(default_factory=list)
    #: Rows of Milvus whose keys are not live.
    n_orphans: int = 0
    #: Their keys, sorted, where they were asked for.
    orphans: list[str] = field(default_factory=list)
    #: Rows that Milvus has beside another of the same key.
    n_duplicates: int = 0
    #: Ranges that were read, of 256.
    n_read: int = 0


def compare(
    database: Database,
    vectors: VectorStore,
    index: IndexRow,
    *,
    everything: bool = False,
    keep: bool = True,
    list_orphans: bool = False,
) -> KeyDifferences:
    """Find what differs; only ranges of the key that may differ are read.

    Args:
        database: Postgres.
        vectors: Milvus; the collection is loaded and flushed.
        index: The index version.
        everything: Read all ranges, whatever was verified before.
        keep: Keep what is verified now, for the next comparison.
        list_orphans: Return the keys of orphans, too.

    Raises:
        ServiceUnavailableError: When Milvus was restarted meanwhile, too.
    """
    state, n_rows = vectors.state(index.collection), vectors.count(index.collection)
    with database.begin() as connection:
        live = live_by_range(connection, index.id)
        known = verified_ranges(connection, index.id, without_incarnation_s=_TRUST_S)
    trusted: set[int] = set()
    if not everything:
        trusted = {
            number
            for number, verified in known.items()
            if verified.keys == live[number]
            and _still_holds(verified, state, is_lite=vectors.is_lite)
        }
        trusted -= _changed(vectors, index.collection, known, trusted, state, n_rows)
    ranges = sorted(_ALL - trusted)
    reading = _Reading(orphans=[] if list_orphans else None)
    for start, end in key_pages(ranges, _sizes(live, known, n_rows)):
        with database.begin() as connection:
            # Before Milvus is read: what is live by now was written by now.
            live_keys = live_between(connection, index.id, start, end)
        reading.add(live_keys, vectors.keys_between(index.collection, start, end))
    if vectors.state(index.collection).incarnation != state.incarnation:
        raise ServiceUnavailableError(
            "Milvus was restarted while its keys were compared with the live ones", "milvus"
        )
    if keep and ranges:
        with database.begin() as connection:
            verified_now = reading.verified(ranges, state)
            keep_verified(connection, index.id, verified_now, trusted=sorted(trusted))
    return KeyDifferences(
        lost=sorted(key for keys in reading.lost.values() for key in keys),
        n_orphans=reading.n_orphans + sum(known[n].rows - known[n].keys.live for n in trusted),
        orphans=sorted(reading.orphans or ()),
        n_duplicates=reading.n_duplicates,
        n_read=len(ranges),
    )


def _sizes(live: Sequence[LiveKeys], known: dict[int, VerifiedRange], n_rows: int) -> list[int]:
    """About how many keys each range has, in Postgres or in Milvus."""
    return [
        max(keys.live, -(-n_rows // N_RANGES), known[number].rows if number in known else 0)
        for number, keys in enumerate(live)
    ]


def _still_holds(verified: VerifiedRange, state: ServerState, *, is_lite: bool) -> bool:
    """Check that nothing can have appeared in Milvus since a range was verified.

    Counts cannot tell a loss from a loss beside something that appeared.
    """
    if state.incarnation is not None:
        return verified.incarnation == state.incarnation
    return not is_lite and verified.incarnation is None and verified.rows == verified.keys.live


def _changed(
    vectors: VectorStore,
    collection: str,
    known: dict[int, VerifiedRange],
    trusted: set[int],
    state: ServerState,
    n_rows: int,
) -> set[int]:
    """The trusted ranges that do not hold as many rows as when they were verified."""
    if state.writes is not None:
        # Nothing was written to it: a loss shows in the total.
        unwritten = all(known[number].writes == state.writes for number in trusted)
        if trusted == _ALL and unwritten and n_rows == sum(known[n].rows for n in trusted):
            return set()
        if trusted == _ALL or vectors.is_lite:
            return trusted  # somebody else wrote to it; or to count is to read, on Milvus Lite
    prefixes: Sequence[str] = [f"{number:02x}" for number in sorted(trusted)]
    if state.incarnation is not None and n_rows > _COUNT_ALL_UP_TO:
        prefixes = _uneven(vectors, collection, known, trusted)
    counts = vectors.count_by_prefix(collection, prefixes)
    return {
        number
        for number, count in zip((int(prefix, 16) for prefix in prefixes), counts, strict=True)
        if count != known[number].rows
    }


def _uneven(
    vectors: VectorStore, collection: str, known: dict[int, VerifiedRange], trusted: set[int]
) -> list[str]:
    """Prefixes of the trusted ranges that have to be counted one by one.

    Those of a first digit are left out together where all of them hold as many rows as they did.
    """
    groups = {
        digit: [n for n in range(16 * place, 16 * place + 16) if n in trusted]
        for place, digit in enumerate(_DIGITS)
    }
    complete = [digit for digit, numbers in groups.items() if len(numbers) == 16]
    counts = vectors.count_by_prefix(collection, complete)
    for digit, count in zip(complete, counts, strict=True):
        if count == sum(known[number].rows for number in groups[digit]):
            groups[digit] = []
    return [f"{number:02x}" for numbers in groups.values() for number in numbers]


@dataclass(slots=True, kw_only=True)
class _Reading:
    """The keys of the ranges that are read, counted by range."""

    live: list[LiveKeys] = field(default_factory=lambda: [LiveKeys()] * N_RANGES)
    rows: list[int] = field(default_factory=lambda: [0] * N_RANGES)
    lost: dict[int, list[str]] = field(default_factory=dict)
    n_orphans: int = 0
    #: None where their keys are not wanted.
    orphans: list[str] | None = None
    n_duplicates: int = 0

    def add(self, live: Sequence[tuple[str, int]], present: Sequence[str]) -> None:
        """Compare all keys of an interval: the live ones, each with its hash, and Milvus'."""
        distinct = set(present)
        self.n_duplicates += len(present) - len(distinct)
        for key, digest in live:
            number = range_of(key)
            self.live[number] = self.live[number].plus(digest)
            if key in distinct:
                distinct.remove(key)
            else:
                self.lost.setdefault(number, []).append(key)
        self.n_orphans += len(distinct)
        if self.orphans is not None:
            self.orphans += distinct
        for key in present:
            self.rows[range_of(key)] += 1

    def verified(self, ranges: Sequence[int], state: ServerState) -> list[VerifiedRange]:
        """Those of the ranges that lack nothing."""
        return [
            VerifiedRange(
                range=number,
                keys=self.live[number],
                rows=self.rows[number],
                incarnation=state.incarnation,
                writes=state.writes,
            )
            for number in ranges
            if number not in self.lost
        ]
