"""Deletion of visual tokens that are no longer used: first their rows, then their files.

A crash between the two leaves files that no row names; the next pruning takes them too.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from sqlalchemy import Connection, select, text

from nightshift.schema.errors import NotFoundError
from nightshift.schema.ledger_tables import Run
from nightshift.schema.states import RunKind
from nightshift.stores.catalog.contents import IS_CURRENT, ITEM_CONTENTS
from nightshift.stores.ledger.counters import runs_with_running_jobs
from nightshift.stores.postgres.database import Database
from nightshift.stores.tokens.shard_files import delete_shards, list_shards

__all__ = ["PruneReport", "PrunedSet", "prune_tokens"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedSet:
    """The files of one token set that a pruning deletes, or would delete."""

    id: int
    catalog: str
    codec: str
    address: str
    shards: int
    #: Of the contents whose tokens these shards hold.
    images: int
    bytes: int
    #: Files that no row names, left by an interrupted pruning or by a job that did not finish.
    leftovers: int
    leftover_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneReport:
    """The result of a pruning, or of its dry run."""

    sets: list[PrunedSet]
    #: One line with the reason for each set or catalogue that was left as it is.
    skipped: list[str]

    @property
    def bytes(self) -> int:
        """Size of all files that are deleted."""
        return sum(pruned.bytes + pruned.leftover_bytes for pruned in self.sets)

    @property
    def images(self) -> int:
        """Images whose tokens are deleted."""
        return sum(pruned.images for pruned in self.sets)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Doomed:
    id: int
    catalog: str
    codec: str
    address: str
    #: Names of shards that go, and of those that stay.
    names: frozenset[str]
    kept: frozenset[str]
    images: int
    bytes: int
    #: The token runs of the set; they have all ended.
    runs: frozenset[int]


def prune_tokens(
    database: Database,
    *,
    named: Collection[int] = (),
    dry_run: bool = False,
    report_progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> PruneReport:
    """Delete shards in which no live item has tokens; or entire sets, if some are named.

    A catalogue is skipped while an unfinished run of it reads tokens.

    Args:
        database: Postgres.
        named: Ids of sets to delete as a whole, in place of a search for unused shards.
        dry_run: Only report what would be deleted.
        report_progress: Called with the numbers of deleted files and of all files.

    Raises:
        NotFoundError: When there is no such set; nothing is deleted.
        ServiceUnavailableError: When a file store does not answer; rows are deleted, files stay for
            the next pruning.
    """
    with database.begin() as connection:
        doomed, skipped = _choose(connection, frozenset(named))
        if not dry_run:
            names = [(tokens.id, name) for tokens in doomed for name in tokens.names]
            _forget(connection, names)
    files = {tokens.id: _files(tokens) for tokens in doomed}
    report = PruneReport(
        sets=[
            PrunedSet(
                id=tokens.id,
                catalog=tokens.catalog,
                codec=tokens.codec,
                address=tokens.address,
                shards=len(tokens.names),
                images=tokens.images,
                bytes=tokens.bytes,
                leftovers=len(files[tokens.id]),
                leftover_bytes=sum(files[tokens.id].values()),
            )
            for tokens in doomed
            if named or tokens.names or files[tokens.id]
        ],
        skipped=skipped,
    )
    if dry_run:
        return report
    total = sum(len(tokens.names) + len(files[tokens.id]) for tokens in doomed)
    done = 0
    for tokens in doomed:
        for _ in delete_shards(tokens.address, [*sorted(tokens.names), *sorted(files[tokens.id])]):
            done += 1
            report_progress(done, total)
        if named:
            # Last: while there is a row, a pruning that is cut short can be taken up again.
            with database.begin() as connection:
                _drop_empty(connection, tokens.id)
    return report


def _files(doomed: _Doomed) -> dict[str, int]:
    """Left-over files of a set by name, with their bytes."""
    return {
        file.name: file.n_bytes
        for file in list_shards(doomed.address)
        if file.run_id in doomed.runs and file.name not in doomed.names | doomed.kept
    }


def _choose(connection: Connection, named: frozenset[int]) -> tuple[list[_Doomed], list[str]]:
    # A run that is planned meanwhile waits for this transaction, or this one for it.
    sets = connection.execute(_CHOOSE_SETS, {"some": bool(named), "named": sorted(named)}).all()
    if missing := sorted(named - {row.id for row in sets}):
        raise NotFoundError(
            f"there is no token set {missing[0]}; `nightshift tokens list` shows those there are"
        )
    busy = _busy_catalogs(connection)
    needed = _needed_sets(connection) if named else {}
    skipped = [
        f"catalogue {name!r}: run {busy[catalog_id]} reads tokens and has not ended; wait for it, "
        "or cancel it"
        for catalog_id, name in dict.fromkeys((row.catalog_id, row.catalog) for row in sets)
        if catalog_id in busy
    ]
    skipped += [
        f"set {row.id}: index {needed[row.id]!r} of catalogue {row.catalog!r} shows items through "
        f"{row.codec}; build that index with another embedder first"
        for row in sets
        if row.id in needed and row.catalog_id not in busy
    ]
    doomed = [
        _doomed(connection, row.id, row.catalog, row.codec, row.address, entire=bool(named))
        for row in sets
        if row.catalog_id not in busy and row.id not in needed
    ]
    return doomed, skipped


def _doomed(
    connection: Connection, set_id: int, catalog: str, codec: str, address: str, *, entire: bool
) -> _Doomed:
    shards = connection.execute(_SHARDS_TO_DELETE, {"set": set_id, "entire": entire}).all()
    run_ids = connection.scalars(
        select(Run.id).where(Run.token_set_id == set_id, Run.kind == RunKind.TOKENS)
    )
    return _Doomed(
        id=set_id,
        catalog=catalog,
        codec=codec,
        address=address,
        names=frozenset(row.name for row in shards if row.dead),
        kept=frozenset(row.name for row in shards if not row.dead),
        images=int(sum(row.images for row in shards if row.dead)),
        bytes=sum(row.n_bytes for row in shards if row.dead),
        runs=frozenset(run_ids),
    )


def _busy_catalogs(connection: Connection) -> dict[int, int]:
    """Catalogues whose tokens a run may still read or write, each with one such run."""
    # A worker may still hold a job although its run was cancelled.
    rows = connection.execute(_BUSY_CATALOGS, {"in_hands": runs_with_running_jobs(connection)})
    return {row.catalog_id: row.run_id for row in rows}


def _needed_sets(connection: Connection) -> dict[int, str]:
    """Sets without which the embedder of an index cannot be loaded, with its name."""
    rows = connection.execute(_NEEDED_SETS)
    return {row.id: row.name for row in rows}


def _forget(connection: Connection, names: Collection[tuple[int, str]]) -> None:
    connection.execute(
        _DELETE_SHARDS,
        {"sets": [set_id for set_id, _ in names], "names": [name for _, name in names]},
    )


def _drop_empty(connection: Connection, set_id: int) -> None:
    """Drop a set unless a run that was planned since then uses it."""
    connection.execute(
        _DELETE_SET,
        {"set": set_id},
    )


# Locks the named token sets, or all, so that no run that is planned meanwhile uses them.
_CHOOSE_SETS = text("""
    SELECT t.id, t.catalog_id, catalog.name AS catalog, t.codec, t.address
    FROM token_set t JOIN catalog ON catalog.id = t.catalog_id
    WHERE NOT :some OR t.id = ANY(:named) ORDER BY t.id FOR UPDATE OF t
""")

# Says of each shard of a set whether it can go, and how many images it holds.
_SHARDS_TO_DELETE = text(f"""
    SELECT s.name, s.n_bytes, :entire OR live.shard_id IS NULL AS dead,
        coalesce(held.images, 0) AS images
    FROM token_shard s
    LEFT JOIN (
        SELECT DISTINCT r.shard_id FROM token_record r
        JOIN token_set t ON t.id = r.token_set_id
        JOIN ({ITEM_CONTENTS}) ON item.catalog_id = t.catalog_id
            AND content.image_hash = r.content
        WHERE t.id = :set AND {IS_CURRENT}) AS live ON live.shard_id = s.id
    LEFT JOIN (
        SELECT shard_id, sum(n_images) AS images FROM token_record
        WHERE token_set_id = :set GROUP BY shard_id) AS held ON held.shard_id = s.id
    WHERE s.token_set_id = :set
""")

# Names, for each catalogue whose tokens a run may read or write, the first such run.
_BUSY_CATALOGS = text("""
    SELECT run.catalog_id, min(run.id) AS run_id FROM run
    WHERE (run.state IN ('running', 'paused') OR run.id = ANY(:in_hands))
        AND (run.token_set_id IS NOT NULL OR EXISTS (
            SELECT FROM "index" i JOIN model ON model.fingerprint = i.embedder_fingerprint
            WHERE i.id = run.index_id AND model.card ->> 'vision' IS NOT NULL))
    GROUP BY run.catalog_id
""")

# Lists the token sets whose codebook the embedder of an index needs.
_NEEDED_SETS = text("""
    SELECT t.id, min(i.name) AS name FROM token_set t
    JOIN "index" i ON i.catalog_id = t.catalog_id AND i.state <> 'retired'
    JOIN model ON model.fingerprint = i.embedder_fingerprint
    WHERE model.card ->> 'vision' = t.vision_fingerprint AND t.codec <> 'none'
        AND model.card -> 'params' ->> 'codec' = t.codec
    GROUP BY t.id
""")

# Deletes shards by set and name.
_DELETE_SHARDS = text("""
    DELETE FROM token_shard s
    USING unnest(CAST(:sets AS bigint[]), CAST(:names AS text[])) AS dead(set_id, name)
    WHERE s.token_set_id = dead.set_id AND s.name = dead.name
""")

# Deletes a set without shards that no unfinished run uses.
_DELETE_SET = text("""
    DELETE FROM token_set t WHERE id = :set
        AND NOT EXISTS (SELECT FROM token_shard s WHERE s.token_set_id = t.id)
        AND NOT EXISTS (SELECT FROM run WHERE run.token_set_id = t.id
            AND run.state IN ('running', 'paused'))
""")
