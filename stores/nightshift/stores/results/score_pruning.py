"""Removal of scores that no run uses: partitions are rewritten in steps, without them.

The scores that stay are copied into a table beside the partition, a slice a transaction; then that
table takes its place, and the partition is dropped. A kill before that leaves the store as it was,
and a table that the next pruning replaces.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from time import sleep

from sqlalchemy import Connection, text

from nightshift.stores.ledger.counters import runs_with_running_jobs
from nightshift.stores.postgres.database import Database
from nightshift.stores.results.scores import keep_from_use

__all__ = ["PrunedScores", "ScorePruning", "prune_scores"]

#: Ids of a slice: of scores that are copied, and of lists that are read.
_SCORES, _LISTS = 200_000, 20_000
_TRIES, _PAUSE_S = 20, 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedScores:
    """Scores of one scorer and month of which some go, or would go."""

    #: As the operator named the scorer.
    scorer: str
    month: date
    #: Scores that no run uses, and those that stay.
    unused: int
    kept: int
    #: Of the partition, by the share of its scores that go.
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorePruning:
    """The result of a pruning of scores, or of its dry run."""

    scores: list[PrunedScores]
    #: One line with the reason for each scorer or month that was left as it is.
    skipped: list[str]

    @property
    def bytes(self) -> int:
        """The size of all scores that go."""
        return sum(pruned.bytes for pruned in self.scores)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Partition:
    scorer: int
    spec: str
    month: date
    name: str
    bytes: int


def prune_scores(
    database: Database,
    *,
    dry_run: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> ScorePruning:
    """Remove the scores that no candidate and no list of any run names.

    Scorers of runs that have not ended are left out: these runs may use any score of theirs.

    Args:
        database: Postgres.
        dry_run: Only report what would go.
        progress: Called with the numbers of partitions that were examined and of all.
    """
    report = ScorePruning(scores=[], skipped=[])
    with database.session() as connection:
        partitions = _partitions(connection)
        for done, partition in enumerate(partitions):
            progress(done, len(partitions))
            name = f"scores of {partition.spec}, {partition.month:%Y-%m}"
            if run_id := _user(connection, partition.scorer):
                report.skipped.append(f"{name}: run {run_id} has not ended and may use them")
                continue
            since = _wait_for_users(connection)
            _collect_used(connection, partition)
            pruned = _count(connection, partition)
            if not pruned.unused:
                continue
            reason = "" if dry_run else _rewrite(connection, partition, since)
            if reason:
                report.skipped.append(f"{name}: {reason}")
            else:
                report.scores.append(pruned)
    return report


def _partitions(connection: Connection) -> list[_Partition]:
    with connection.begin():
        return [_Partition(**row) for row in connection.execute(_PARTITIONS).mappings()]


def _user(connection: Connection, scorer: int) -> int | None:
    """A run that may still use any score of a scorer."""
    with connection.begin():
        values = {"scorer": scorer, "in_hands": runs_with_running_jobs(connection)}
        return connection.execute(_USER, values).scalar()


def _wait_for_users(connection: Connection) -> datetime:
    """The time, when all who were taking ids of scores have committed."""
    with connection.begin():
        keep_from_use(connection)
        now = connection.execute(_NOW).scalar_one()
        assert isinstance(now, datetime)
        return now


def _collect_used(connection: Connection, partition: _Partition) -> None:
    """Keep the ids of the scores of a scorer that runs use in a temporary table."""
    with connection.begin():
        connection.execute(_DROP_USED)
        connection.execute(_MAKE_USED)
        runs = list(connection.execute(_RUNS, {"scorer": partition.scorer}).scalars())
        has_lists = connection.execute(_HAS_LISTS).scalar_one()
    for run_id in runs:
        with connection.begin():
            connection.execute(_USED_BY_RUN, {"run": run_id})
    if has_lists:
        _collect_used_by_lists(connection, partition.scorer)
    with connection.begin():
        connection.execute(_ANALYZE_USED)


def _collect_used_by_lists(connection: Connection, scorer: int) -> None:
    statement = (
        "INSERT INTO used SELECT DISTINCT unnest(score_ids) FROM ranked_list "
        "WHERE scorer = %s AND id BETWEEN %s AND %s ON CONFLICT DO NOTHING"
    )
    for first, last in _slices(connection, "ranked_list", _LISTS):
        with connection.begin():
            connection.exec_driver_sql(statement, (scorer, first, last))


def _slices(connection: Connection, table: str, step: int) -> Iterator[tuple[int, int]]:
    """Ranges of ids that cover a table, both ends included."""
    with connection.begin():
        bounds = connection.exec_driver_sql(f"SELECT min(id), max(id) FROM {table}").one()
    if bounds[0] is None:
        return
    for first in range(bounds[0], bounds[1] + 1, step):
        yield first, first + step - 1


def _count(connection: Connection, partition: _Partition) -> PrunedScores:
    statement = (
        "SELECT count(*) AS n, count(used.id) AS kept "
        f"FROM {partition.name} s LEFT JOIN used ON used.id = s.id"
    )
    with connection.begin():
        row = connection.exec_driver_sql(statement).one()
    unused = row.n - row.kept
    return PrunedScores(
        scorer=partition.spec,
        month=partition.month,
        unused=unused,
        kept=row.kept,
        bytes=partition.bytes * unused // max(1, row.n),
    )


def _rewrite(connection: Connection, partition: _Partition, since: datetime) -> str:
    """Put a table with the used scores in the place of a partition; the reason why not."""
    values = {"scorer": partition.scorer, "month": partition.month}
    with connection.begin():
        connection.execute(_BEGIN_REWRITE, values)
    statement = (
        f"INSERT INTO {partition.name}_kept SELECT s.* FROM {partition.name} s "
        "WHERE s.id BETWEEN %s AND %s AND EXISTS (SELECT FROM used WHERE used.id = s.id)"
    )
    for bounds in _slices(connection, partition.name, _SCORES):
        with connection.begin():
            connection.exec_driver_sql(statement, bounds)
    for tries in range(_TRIES):
        if tries:
            sleep(_PAUSE_S)
        with connection.begin():
            done = connection.execute(_FINISH_REWRITE, {**values, "since": since}).scalar_one()
        if done == "used":
            return "a run has begun or ended meanwhile, or a load was dropped; try again later"
        if done != "busy":
            return ""
    return "others use the table all the time; try again later"


# Lists the partitions of the store, oldest month first.
_PARTITIONS = text(r"""
    SELECT m.number AS scorer, m.spec, leaf.relname AS name,
        to_date(substring(leaf.relname FROM '_(\d{6})$'), 'YYYYMM') AS month,
        pg_total_relation_size(leaf.oid) AS bytes
    FROM pg_partition_tree('score') AS tree JOIN pg_class leaf ON leaf.oid = tree.relid
    JOIN model m ON m.number = CAST(substring(leaf.relname FROM '^score_s(\d+)_') AS integer)
    WHERE tree.isleaf ORDER BY month, scorer
""")

# Finds a run that may still take ids of scores of a scorer.
_USER = text("""
    SELECT min(run.id) FROM run JOIN model ON model.fingerprint = run.scorer_fingerprint
    WHERE model.number = :scorer AND run.kind = 'rerank'
        AND (run.state IN ('running', 'paused') OR run.id = ANY(:in_hands))
""")

# Reads the clock of Postgres.
_NOW = text("SELECT clock_timestamp()")

_DROP_USED = text("DROP TABLE IF EXISTS used")

# Makes a table for the ids of scores that are used, which lasts as long as its connection.
_MAKE_USED = text("CREATE TEMP TABLE used (id bigint PRIMARY KEY)")

_ANALYZE_USED = text("ANALYZE used")

# Lists the runs that may name scores of a scorer.
_RUNS = text("""
    SELECT run.id FROM run JOIN model ON model.fingerprint = run.scorer_fingerprint
    WHERE model.number = :scorer AND run.kind = 'rerank' ORDER BY run.id
""")

# Says whether lists are stored that name scores.
_HAS_LISTS = text("SELECT to_regclass('public.ranked_list') IS NOT NULL")

# Adds the scores that the candidates of a run name.
_USED_BY_RUN = text("""
    INSERT INTO used SELECT DISTINCT score_id FROM candidate
    WHERE run_id = :run AND score_id IS NOT NULL ON CONFLICT DO NOTHING
""")

# Makes the table into which the scores that stay are copied.
_BEGIN_REWRITE = text("SELECT begin_score_rewrite(:scorer, :month)")

# Puts it in the place of the partition.
_FINISH_REWRITE = text("SELECT finish_score_rewrite(:scorer, :month, :since)")
