"""Ranges of the keys of an index, by their first byte, whose live vectors were seen in Milvus."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, delete, func, insert, select, text

from nightshift.schema.index_tables import IndexRange
from nightshift.schema.tables import Embedding, IndexVersion

__all__ = [
    "N_RANGES",
    "LiveKeys",
    "VerifiedRange",
    "announce_writes",
    "keep_verified",
    "keys_to_delete",
    "live_between",
    "live_by_range",
    "range_of",
    "verified_ranges",
]

#: One for each value of a key's first byte.
N_RANGES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveKeys:
    """The live keys of a range in brief: two sets differ in one of these numbers."""

    live: int = 0
    #: XOR of a 64-bit hash of each.
    digest: int = 0

    def plus(self, digest: int) -> "LiveKeys":
        """One more key, by its hash."""
        return LiveKeys(live=self.live + 1, digest=self.digest ^ digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedRange:
    """A range whose live vectors were all seen in Milvus."""

    range: int
    keys: LiveKeys
    #: Rows of Milvus: more than live ones where nobody owns some, or some are there twice.
    rows: int
    #: The start of Milvus that they were seen under; None where it does not tell.
    incarnation: str | None
    #: Writes to the collection that Milvus had counted before; None where it does not count.
    writes: int | None


def range_of(key: str) -> int:
    """The range that a key belongs to."""
    return int(key[:2].ljust(2, "0"), 16)


def live_by_range(connection: Connection, index_id: int) -> list[LiveKeys]:
    """The live keys of each of the 256 ranges of an index, in brief."""
    live = [LiveKeys()] * N_RANGES
    for row in connection.execute(_LIVE_BY_RANGE, {"index": index_id}):
        live[row.range] = LiveKeys(live=row.live, digest=row.digest)
    return live


def live_between(
    connection: Connection, index_id: int, start: str, end: str | None
) -> list[tuple[str, int]]:
    """The live keys from `start` on and before `end`, each with its 64-bit hash."""
    selected = select(Embedding.key, func.hashtextextended(Embedding.key, 0)).where(
        Embedding.index_id == index_id, Embedding.key >= start
    )
    if end is not None:
        selected = selected.where(Embedding.key < end)
    return [(str(key), int(digest)) for key, digest in connection.execute(selected)]


def verified_ranges(
    connection: Connection, index_id: int, *, without_incarnation_s: float
) -> dict[int, VerifiedRange]:
    """The ranges that were verified, by range.

    Args:
        connection: A transaction.
        index_id: The index version.
        without_incarnation_s: One that was verified longer ago is left out where Milvus did not
            tell when it started: it may have been restarted since.
    """
    recent = IndexRange.verified_at > func.clock_timestamp() - timedelta(
        seconds=without_incarnation_s
    )
    rows = connection.execute(
        select(IndexRange).where(
            IndexRange.index_id == index_id, IndexRange.incarnation.is_not(None) | recent
        )
    ).mappings()
    return {
        row["range"]: VerifiedRange(
            range=row["range"],
            keys=LiveKeys(live=row["live"], digest=row["digest"]),
            rows=row["rows"],
            incarnation=row["incarnation"],
            writes=row["writes"],
        )
        for row in rows
    }


def announce_writes(connection: Connection, index_id: int, keys: Iterable[str]) -> None:
    """Forget the ranges of keys that are about to be written to Milvus or deleted from it.

    Committed before the write: whatever becomes of the writer, these ranges are read again.
    """
    ranges = sorted({range_of(key) for key in keys})
    connection.execute(_FORGET_RANGES, {"index": index_id, "ranges": ranges})


def keep_verified(
    connection: Connection,
    index_id: int,
    read: Sequence[VerifiedRange],
    *,
    trusted: Sequence[int],
) -> bool:
    """Keep what is verified of an index; all its other ranges are forgotten.

    Nothing is kept while a job may be writing vectors that nobody can count yet.

    Args:
        connection: A transaction of its own.
        index_id: The index version.
        read: Ranges that were read and lack nothing.
        trusted: Ranges that were verified before, and hold as many rows as then.

    Returns:
        True if it was kept.
    """
    # No run over the index begins before this transaction ends.
    connection.execute(select(IndexVersion.id).where(IndexVersion.id == index_id).with_for_update())
    if connection.execute(_IS_EMBEDDING, {"index": index_id}).scalar_one():
        return False
    of_index = IndexRange.index_id == index_id
    connection.execute(delete(IndexRange).where(of_index, IndexRange.range.not_in(trusted)))
    if read:
        connection.execute(
            insert(IndexRange),
            [
                {
                    "index_id": index_id,
                    "range": verified.range,
                    "live": verified.keys.live,
                    "digest": verified.keys.digest,
                    "rows": verified.rows,
                    "incarnation": verified.incarnation,
                    "writes": verified.writes,
                }
                for verified in read
            ],
        )
    return True


def keys_to_delete(connection: Connection, index_id: int, keys: Sequence[str]) -> list[str]:
    """Those of the keys that are not live, sorted.

    Valid only while `reconcile.lock_index` returns True: a vector is written before its key is
    live.
    """
    live = connection.scalars(
        select(Embedding.key).where(Embedding.index_id == index_id, Embedding.key == func.any(keys))
    )
    return sorted(set(keys) - set(live))


# Counts the live keys of an index by their first byte, and combines a hash of each.
_LIVE_BY_RANGE = text("""
    SELECT CAST(CAST('x' || left(key, 2) AS bit(8)) AS int) AS range, count(*) AS live,
        bit_xor(hashtextextended(key, 0)) AS digest
    FROM embedding WHERE index_id = :index GROUP BY 1
""")

# Forgets ranges in their order, so that two who do it at once wait for each other in one direction.
_FORGET_RANGES = text("""
    DELETE FROM index_range WHERE (index_id, range) IN (
        SELECT index_id, range FROM index_range
        WHERE index_id = :index AND range = ANY(CAST(:ranges AS smallint[]))
        ORDER BY range FOR UPDATE)
""")

# Tells whether a job is writing vectors of an index, or will.
_IS_EMBEDDING = text("""
    SELECT EXISTS (
        SELECT FROM run JOIN job ON job.run_id = run.id AND job.stage = 'embed'
        WHERE run.index_id = :index AND (job.state = 'running'
            OR job.state = 'queued' AND run.state IN ('running', 'paused')))
""")
