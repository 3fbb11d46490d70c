"""Pruning removes ended runs whole, with their partitions, and no run that is needed."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from nightshift.cli.main import main
from nightshift.schema.errors import NotFoundError
from nightshift.schema.plans import RerankPlan
from nightshift.schema.states import RunState, Stage
from nightshift.stores.ledger import run_pruning, runs
from nightshift.stores.ledger.claims import Ledger
from nightshift.stores.ledger.new_runs import create_rerank_run
from nightshift.stores.ledger.run_pruning import prune_runs, run_bytes
from tests.results.ranked import add_reference_run
from tests.stores.ledger_helpers import add_index_run


def repeat_run(database, like_id, end=RunState.DONE):
    """Another run as an earlier one, without its results."""
    with database.begin() as connection:
        like = runs.get_run(connection, like_id)
        run_id = create_rerank_run(
            connection, stage=Stage.RANK, catalog_id=like.catalog_id, index_id=like.index_id,
            query_set_id=like.query_set_id, revision=like.revision, scorer=like.scorer,
            scorer_fingerprint=like.scorer_fingerprint, params=like.params, plan=RerankPlan(),
        )  # fmt: skip
        if end is not None:
            runs.set_run_state(connection, run_id, end)
    return run_id


def end_run(database, run_id, state=RunState.DONE):
    with database.begin() as connection:
        runs.set_run_state(connection, run_id, state)


def age(database, run_id, interval):
    with database.begin() as connection:
        statement = text(
            "UPDATE run SET finished_at = now() - CAST(:age AS interval) WHERE id = :run"
        )
        connection.execute(statement, {"age": interval, "run": run_id})


def run_ids(database):
    with database.begin() as connection:
        return list(connection.execute(text("SELECT id FROM run ORDER BY id")).scalars())


def relations_of(database, run_id):
    with database.begin() as connection:
        statement = text("SELECT relname FROM pg_class WHERE relname LIKE :name AND relkind = 'r'")
        return list(connection.execute(statement, {"name": f"%\\_r{run_id}"}).scalars())


def ids(report):
    return [run.id for run in report.runs]


@pytest.fixture
def first(database):
    """A done run with results."""
    run_id = add_reference_run(database)
    end_run(database, run_id)
    return run_id


def test_a_run_goes_with_its_partitions_and_all_rows_that_are_its_own(database, first):
    newer = repeat_run(database, first)
    with database.begin() as connection:
        size = run_bytes(connection)[first]
    assert size > 0

    report = prune_runs(database, keep=1)

    assert ids(report) == [first]
    assert report.bytes == size
    assert run_ids(database) == [newer]
    assert relations_of(database, first) == []
    assert relations_of(database, newer)
    with database.begin() as connection:
        for table in ("job", "candidate", "calibration", "failure"):
            statement = text(f"SELECT count(*) FROM {table} WHERE run_id = :run")
            assert connection.execute(statement, {"run": first}).scalar_one() == 0
        with pytest.raises(NotFoundError):
            runs.get_run(connection, first)


def test_a_dry_run_names_the_runs_and_removes_none(database, first):
    newer = repeat_run(database, first)

    report = prune_runs(database, keep=1, dry_run=True)

    assert ids(report) == [first]
    assert run_ids(database) == [first, newer]


def test_only_done_runs_count_as_kept_and_a_later_failure_stays(database, first):
    done = repeat_run(database, first)
    failed = repeat_run(database, first, RunState.FAILED)
    assert ids(prune_runs(database, keep=1, dry_run=True)) == [first]
    assert ids(prune_runs(database, keep=2, dry_run=True)) == []

    last = repeat_run(database, first)

    assert ids(prune_runs(database, keep=1, dry_run=True)) == [first, done, failed]
    assert ids(prune_runs(database, keep=2, dry_run=True)) == [first]
    assert ids(prune_runs(database, keep=0, dry_run=True)) == [first, done, failed, last]


def test_runs_that_have_not_ended_stay_even_when_none_is_to_be_kept(database, first):
    running = repeat_run(database, first, None)
    paused = repeat_run(database, first, RunState.PAUSED)

    prune_runs(database, keep=0)

    assert run_ids(database) == [running, paused]


def test_by_age_old_runs_go_but_for_the_last_that_is_done(database, first):
    failed = repeat_run(database, first, RunState.FAILED)
    recent = repeat_run(database, first, RunState.CANCELLED)
    for run_id in (first, failed):
        age(database, run_id, "40 days")

    report = prune_runs(database, older_than=timedelta(days=30))

    assert ids(report) == [failed]
    assert run_ids(database) == [first, recent]


def test_with_both_bounds_a_run_goes_only_if_both_let_it_go(database, first):
    second, third = repeat_run(database, first), repeat_run(database, first)
    age(database, first, "40 days")

    report = prune_runs(database, keep=1, older_than=timedelta(days=30))

    assert ids(report) == [first]
    assert run_ids(database) == [second, third]


def test_runs_of_other_query_sets_and_builds_are_counted_by_themselves(database, first):
    build = add_index_run(database)
    end_run(database, build)
    repeat_run(database, first)

    report = prune_runs(database, keep=1)

    assert ids(report) == [first]
    assert build in run_ids(database)


def test_a_catalogue_is_pruned_by_itself_and_must_exist(database, first):
    build = add_index_run(database)
    end_run(database, build)

    assert ids(prune_runs(database, keep=0, catalog="things", dry_run=True)) == [first]
    with pytest.raises(NotFoundError, match="catalogue 'none'"):
        prune_runs(database, keep=0, catalog="none")


def test_a_cancelled_run_whose_job_a_worker_still_has_stays(database):
    build = add_index_run(database)
    ledger = Ledger(database, worker_id="worker", lease_s=60.0, max_attempts=3)
    ledger.claim(build, 1)
    end_run(database, build, RunState.CANCELLED)

    report = prune_runs(database, keep=0)

    assert report.runs == []
    assert "a worker still has a job of it" in report.skipped[0]
    assert run_ids(database) == [build]


def test_a_run_whose_tables_others_read_stays_and_others_are_not_held_up(
    database, first, monkeypatch
):
    monkeypatch.setattr(run_pruning, "_TRIES", 2)
    with database.begin() as reader:
        reader.execute(text("SELECT count(*) FROM candidate")).scalar_one()

        report = prune_runs(database, keep=0)

        assert report.runs == []
        assert "long export" in report.skipped[0]
        assert reader.execute(text("SELECT count(*) FROM job")).scalar_one() > 0
    assert ids(prune_runs(database, keep=0)) == [first]


def test_runs_are_planned_and_pruned_at_once(database, first):
    running = repeat_run(database, first, None)

    with ThreadPoolExecutor(1) as pool:
        planned = pool.submit(lambda: [repeat_run(database, running) for _ in range(10)])
        while not planned.done():
            prune_runs(database, keep=3)

    prune_runs(database, keep=3)
    assert run_ids(database) == [running, *planned.result()[-3:]]


_PRUNE = """
import sys
from nightshift.stores.ledger.run_pruning import prune_runs
from nightshift.stores.postgres.database import Database
print("ready", flush=True)
with Database(sys.argv[1]) as database:
    prune_runs(database, keep=0, progress=lambda done, _: print(done, flush=True))
"""


def test_a_pruning_that_is_killed_leaves_every_run_whole_or_gone(database, database_url, first):
    for _ in range(12):
        repeat_run(database, first)

    for killed_after in (1, 3, 5):
        pruning = subprocess.Popen(
            [sys.executable, "-c", _PRUNE, database_url], stdout=subprocess.PIPE, text=True
        )
        for _ in range(killed_after):
            pruning.stdout.readline()
        os.kill(pruning.pid, signal.SIGKILL)
        pruning.wait()
        for run_id in range(first, first + 13):
            tables = relations_of(database, run_id)
            assert bool(tables) == (run_id in run_ids(database)), run_id

    prune_runs(database, keep=0)
    assert run_ids(database) == []
    with database.begin() as connection:
        assert run_bytes(connection) == {}


def test_the_command_says_what_goes_and_how_large_it_is(database, database_url, first):
    repeat_run(database, first)
    cli = CliRunner(env={"NIGHTSHIFT_DATABASE_URL": database_url})

    shown = cli.invoke(main, ["run", "prune", "--keep", "1", "--dry-run"])
    done = cli.invoke(main, ["run", "prune", "--keep", "1", "--json"])

    assert "1 runs," in shown.stdout
    assert "would be deleted" in shown.stdout
    facts = json.loads(done.stdout)
    assert [run["id"] for run in facts["runs"]] == [first]
    assert facts["bytes"] > 0
    assert facts["dry_run"] is False


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "--keep 7 or --older-than 30d"),
        (["--older-than", "soon"], 2, "12h, 30d, 4w"),
        (["--keep", "1", "--catalog", "none"], 3, "there is no catalogue"),
    ],
)
def test_a_request_that_says_too_little_is_refused(database_url, words, code, message):
    cli = CliRunner(env={"NIGHTSHIFT_DATABASE_URL": database_url})

    done = cli.invoke(main, ["run", "prune", *words])

    assert done.exit_code == code
    assert message in done.stderr
