"""Frequent statements cost the same with many jobs, and with many runs in the database."""

from functools import partial

import pytest
from sqlalchemy import text

from nightshift.results.runs import show_run
from nightshift.schema.states import RunState
from nightshift.stores import health
from nightshift.stores.ledger import jobs, runs
from nightshift.stores.ledger.claims import Ledger
from nightshift.stores.ledger.counters import compact_job_counts
from nightshift.stores.ledger.retries import expire_leases
from tests.stores.ledger.query_plans import rows_read
from tests.stores.ledger_helpers import add_index_run, expire

_MANY = 5000


@pytest.fixture
def many_jobs(database):
    """A run of many jobs, some of them queued still; Postgres has no statistics of it yet."""
    run_id = add_index_run(database, n_jobs=1)
    with database.begin() as connection:
        connection.execute(
            text(
                """
                INSERT INTO job (run_id, id, stage, queue, payload, n_units, state,
                    started_at, finished_at)
                SELECT run_id, n, stage, queue, payload, n_units,
                    CASE WHEN n % 10 = 0 THEN 'queued' ELSE 'done' END,
                    CASE WHEN n % 10 > 0 THEN clock_timestamp() - interval '9 s' END,
                    CASE WHEN n % 10 > 0 THEN clock_timestamp() END
                FROM job CROSS JOIN generate_series(2, :n) AS n WHERE run_id = :r
                """
            ),
            {"r": run_id, "n": _MANY},
        )
        compact_job_counts(connection)
    return run_id


@pytest.fixture
def old_runs(database):
    """Runs that ended."""
    ended = [add_index_run(database, n_jobs=2, per_job=n) for n in range(1, 6)]
    with database.begin() as connection:
        for run_id in ended:
            runs.set_run_state(connection, run_id, RunState.CANCELLED)
    return ended


def _in_transaction(database, ask):
    with database.begin() as connection:
        return ask(connection)


def _of_jobs(read):
    return {table: rows for table, rows in read.items() if table.startswith("job_r")}


@pytest.mark.parametrize("with_statistics", [False, True])
def test_a_run_is_shown_from_counters_and_a_bounded_number_of_jobs(
    database, many_jobs, old_runs, with_statistics
):
    if with_statistics:
        _in_transaction(database, partial(runs.refresh_statistics, run_id=many_jobs, table="job"))

    read = rows_read(database, partial(show_run, database, many_jobs))

    # The first that started, and the last five hundred that were done.
    assert _of_jobs(read) == {f"job_r{many_jobs}": 501}
    assert 0 < read["job_count"] <= 4


def test_a_run_that_ended_is_shown_from_as_few(database, many_jobs, old_runs):
    with database.begin() as connection:
        connection.execute(
            text("DELETE FROM job WHERE run_id = :r AND state = 'queued'"), {"r": many_jobs}
        )
        compact_job_counts(connection)

    read = rows_read(database, partial(show_run, database, many_jobs))

    assert _of_jobs(read) == {f"job_r{many_jobs}": 502}


def test_expired_leases_are_looked_for_where_jobs_run_only(database, many_jobs, old_runs):
    ledger = Ledger(database, worker_id="w", lease_s=60, max_attempts=3)
    look = partial(_in_transaction, database, partial(expire_leases, max_attempts=3))

    at_rest = rows_read(database, look)
    ledger.claim(many_jobs, 10)
    running = rows_read(database, look)

    assert _of_jobs(at_rest) == {}
    assert list(_of_jobs(running)) == [f"job_r{many_jobs}"]
    assert _of_jobs(running)[f"job_r{many_jobs}"] <= 1


def test_a_job_left_running_by_a_cancelled_run_is_taken_back_all_the_same(database, many_jobs):
    Ledger(database, worker_id="w", lease_s=60, max_attempts=3).claim(many_jobs, 10)
    expire(database, many_jobs, 10)
    with database.begin() as connection:
        runs.set_run_state(connection, many_jobs, RunState.CANCELLED)

    assert _in_transaction(database, partial(expire_leases, max_attempts=3)) == 1
    assert _in_transaction(database, health.count_stuck_jobs) == 0


def test_a_worker_that_chooses_its_queues_reads_one_job_a_run(database, many_jobs, old_runs):
    ask = partial(_in_transaction, database, partial(jobs.has_work, run_id=many_jobs))

    assert _of_jobs(rows_read(database, ask)) == {f"job_r{many_jobs}": 1}
