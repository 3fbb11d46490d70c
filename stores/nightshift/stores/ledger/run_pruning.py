"""Removal of ended runs: their partitions are dropped, and the rest goes with their row.

Each run goes in a transaction of its own, so a kill leaves every run whole or gone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import sleep

from sqlalchemy import Connection, delete, func, select, text

from nightshift.schema.ledger_tables import Run
from nightshift.schema.states import RunKind, RunState
from nightshift.stores.catalog.catalogs import catalog_id
from nightshift.stores.ledger.counters import runs_with_running_jobs
from nightshift.stores.postgres.database import Database

__all__ = ["PrunedRun", "RunPruning", "pinned_runs", "prune_runs", "remove_run", "run_bytes"]

#: How often, and after how many seconds, a run is tried whose tables others use.
_TRIES, _PAUSE_S = 20, 0.25

_IN_HANDS = "a worker still has a job of it; try again when the worker has handed it back"
_ENDED = frozenset({RunState.DONE, RunState.FAILED, RunState.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedRun:
    """A run that a pruning removes, or would remove."""

    id: int
    kind: RunKind
    state: RunState
    catalog: str
    #: None unless it is a re-ranking.
    query_set: str | None
    finished_at: datetime
    #: Of its partitions.
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPruning:
    """The result of a pruning of runs, or of its dry run."""

    runs: list[PrunedRun]
    #: One line with the reason for each run that was to go and stays.
    skipped: list[str]

    @property
    def bytes(self) -> int:
        """The size of the partitions of all runs that go."""
        return sum(run.bytes for run in self.runs)


def prune_runs(
    database: Database,
    *,
    keep: int | None = None,
    older_than: timedelta | None = None,
    catalog: str | None = None,
    dry_run: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> RunPruning:
    """Remove ended runs that `keep` and `older_than` both let go.

    Runs of one line are counted together: re-rankings of query sets of one name over one catalogue
    by one method, or builds of one index version. Token builds stay as long as their set.

    Args:
        database: Postgres.
        keep: Runs stay that fewer than so many newer done runs of their line follow; 0 keeps none.
            Without it, the newest done run of a line stays.
        older_than: Runs stay that ended within this time.
        catalog: Only runs of this catalogue.
        dry_run: Only report what would go.
        progress: Called with the numbers of runs that were tried and of all.

    Raises:
        NotFoundError: There is no such catalogue.
    """
    with database.begin() as connection:
        number = None if catalog is None else catalog_id(connection, catalog)
        chosen = _choose(connection, keep, older_than, number)
        pinned = pinned_runs(connection)
    removed = []
    skipped = [f"run {run.id}: {pinned[run.id]}" for run in chosen if run.id in pinned]
    free = [run for run in chosen if run.id not in pinned]
    for done, run in enumerate(free):
        progress(done, len(free))
        if not dry_run and (reason := _remove_patiently(database, run.id)):
            skipped.append(f"run {run.id}: {reason}")
        else:
            removed.append(run)
    return RunPruning(runs=removed, skipped=skipped)


def pinned_runs(connection: Connection) -> dict[int, str]:
    """Runs that no pruning may remove although they have ended, each with the reason."""
    return dict.fromkeys(runs_with_running_jobs(connection), _IN_HANDS)


def remove_run(connection: Connection, run_id: int) -> bool:
    """Remove an ended run with everything that is its own.

    Args:
        connection: A transaction; other runs wait until it ends, so it does little else.
        run_id: The run.

    Returns:
        False where other transactions use its tables; then nothing is removed.
    """
    if not connection.execute(select(func.drop_run_partitions(run_id))).scalar_one():
        return False
    connection.execute(delete(Run).where(Run.id == run_id))
    return True


def run_bytes(connection: Connection) -> dict[int, int]:
    """Run → bytes of its partitions, their indexes included."""
    return {int(row.run_id): int(row.bytes) for row in connection.execute(_RUN_BYTES)}


def _remove_patiently(database: Database, run_id: int) -> str:
    """Remove a run; the reason why it stays, or nothing."""
    for tries in range(_TRIES):
        if tries:
            sleep(_PAUSE_S)
        with database.begin() as connection:
            state = connection.execute(
                select(Run.state).where(Run.id == run_id).with_for_update()
            ).scalar()
            if state is None:  # another pruning was faster
                return ""
            if state not in _ENDED:
                return f"it is {state.value} again"
            if remove_run(connection, run_id):
                return ""
    return "others use its tables all the time, such as a long export; try again later"


def _choose(
    connection: Connection, keep: int | None, older_than: timedelta | None, catalog: int | None
) -> list[PrunedRun]:
    sizes = run_bytes(connection)
    rows = connection.execute(
        _CHOOSE_RUNS, {"keep": keep, "older_than": older_than, "catalog": catalog}
    )
    return [
        PrunedRun(
            id=row.id,
            kind=RunKind(row.kind),
            state=RunState(row.state),
            catalog=row.catalog,
            query_set=row.query_set,
            finished_at=row.finished_at,
            bytes=sizes.get(row.id, 0),
        )
        for row in rows
    ]


# Lists the ended runs that may go, the oldest first; done runs of the same line that are newer are
# counted.
_CHOOSE_RUNS = text("""
    SELECT * FROM (
        SELECT run.id, run.kind, run.state, run.catalog_id, run.finished_at,
            catalog.name AS catalog, query_set.name AS query_set,
            run.kind = 'tokens' AND run.token_set_id IS NOT NULL AS is_needed,
            count(*) FILTER (WHERE run.state = 'done') OVER (
                PARTITION BY run.kind, run.catalog_id, query_set.name, run.method,
                    CASE run.kind WHEN 'index' THEN run.index_id END
                ORDER BY run.id DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ) AS newer
        FROM run JOIN catalog ON catalog.id = run.catalog_id
        LEFT JOIN query_set ON query_set.id = run.query_set_id
    ) AS counted
    WHERE state IN ('done', 'failed', 'cancelled') AND NOT is_needed
        AND (CAST(:catalog AS bigint) IS NULL OR catalog_id = :catalog)
        AND (CAST(:older_than AS interval) IS NULL
            OR finished_at < now() - CAST(:older_than AS interval))
        AND CASE WHEN CAST(:keep AS bigint) IS NULL THEN state <> 'done' OR newer >= 1
            ELSE newer >= :keep END
    ORDER BY id
""")

# Adds up the sizes of the partitions of each run, which are named after it.
_RUN_BYTES = text(r"""
    SELECT CAST(substring(leaf.relname FROM '_r(\d+)$') AS bigint) AS run_id,
        sum(pg_total_relation_size(leaf.oid)) AS bytes
    FROM pg_partitioned_table p JOIN pg_class parent ON parent.oid = p.partrelid
    JOIN pg_inherits ON inhparent = p.partrelid JOIN pg_class leaf ON leaf.oid = inhrelid
    WHERE parent.relnamespace = 'public'::regnamespace
        AND pg_get_partkeydef(p.partrelid) = 'LIST (run_id)'
    GROUP BY 1
""")
