"""The counts are those of the jobs, whatever moves them, and commits never wait for each other."""

from threading import Thread

import pytest
from sqlalchemy import text

from nightshift.stores.ledger.claims import Ledger
from nightshift.stores.ledger.counters import compact_job_counts
from nightshift.stores.ledger.retries import expire_leases
from tests.stores.ledger_helpers import add_index_run, expire, make_due


@pytest.fixture
def ledger(database):
    return Ledger(database, worker_id="w", lease_s=30, max_attempts=1)


_OF_JOBS = """
    SELECT count(*) AS jobs, count(*) FILTER (WHERE state = 'queued') AS queued,
        count(*) FILTER (WHERE state = 'running') AS running,
        count(*) FILTER (WHERE state = 'done') AS done,
        count(*) FILTER (WHERE state = 'failed') AS failed,
        sum(n_units) FILTER (WHERE state <> 'split') AS units,
        coalesce(sum(n_units) FILTER (WHERE state = 'done'), 0) AS units_done,
        sum(n_failed) AS units_failed,
        coalesce(sum(n_units) FILTER (WHERE state IN ('queued', 'running')), 0) AS units_left,
        min(started_at) AS started_at, max(finished_at) AS finished_at
    FROM job WHERE run_id = :r GROUP BY stage
"""


def _view_and_jobs(database, run_id):
    columns = _OF_JOBS.split("FROM job", maxsplit=1)[0]
    names = [part.split()[0].strip(",") for part in columns.split(" AS ")[1:]]
    with database.begin() as connection:
        view = connection.execute(
            text(f"SELECT {', '.join(names)} FROM v_run_progress WHERE run_id = :r"), {"r": run_id}
        ).one_or_none()
        jobs = connection.execute(text(_OF_JOBS), {"r": run_id}).one_or_none()
    return view, jobs


def _move_jobs_in_every_way(database, ledger, run_id):
    with ledger.finish(ledger.claim(run_id, 1), n_failed=2):
        pass
    ledger.hand_back(ledger.claim(run_id, 2), "stopping")
    make_due(database, run_id)
    ledger.renew(ledger.claim(run_id, 2))
    ledger.fail_attempt(ledger.claim(run_id, 3), "poison", "split in two")
    ledger.claim(run_id, 4)
    expire(database, run_id, 4)
    with database.begin() as connection:
        expire_leases(connection, max_attempts=3)


def test_the_view_counts_jobs_and_units_before_and_after_compaction(database, ledger):
    run_id = add_index_run(database, n_jobs=5, per_job=4)
    other = add_index_run(database, n_jobs=2, per_job=3)
    _move_jobs_in_every_way(database, ledger, run_id)

    before, expected = _view_and_jobs(database, run_id)
    with database.begin() as connection:
        moved = compact_job_counts(connection)
    after, _ = _view_and_jobs(database, run_id)

    assert before == after == expected
    assert moved > 0
    view, jobs = _view_and_jobs(database, other)
    assert view == jobs


def test_compacted_deltas_are_gone_and_later_ones_add_to_the_counts(database, ledger):
    run_id = add_index_run(database, n_jobs=5, per_job=4)
    with database.begin() as connection:
        compact_job_counts(connection)
    _move_jobs_in_every_way(database, ledger, run_id)
    with database.begin() as connection:
        compact_job_counts(connection)
        left = connection.execute(text("SELECT count(*) FROM job_delta")).scalar_one()

    view, jobs = _view_and_jobs(database, run_id)
    assert left == 0
    assert view == jobs


def test_a_renewal_leaves_no_delta(database, ledger):
    run_id = add_index_run(database)
    claim = ledger.claim(run_id, 1)
    with database.begin() as connection:
        compact_job_counts(connection)

    ledger.renew(claim)

    with database.begin() as connection:
        assert compact_job_counts(connection) == 0


def test_a_run_that_was_deleted_leaves_no_counts(database, ledger):
    run_id = add_index_run(database)
    ledger.claim(run_id, 1)
    with database.begin() as connection:
        connection.execute(text("DELETE FROM run WHERE id = :r"), {"r": run_id})
    with database.begin() as connection:
        compact_job_counts(connection)
        left = connection.execute(text("SELECT count(*) FROM job_count")).scalar_one()

    assert left == 0


def test_a_commit_waits_neither_for_another_one_nor_for_the_compaction(database, ledger):
    run_id = add_index_run(database, n_jobs=2)
    first, second = ledger.claim(run_id, 1), ledger.claim(run_id, 2)

    def finish_second():
        with ledger.finish(second):
            pass

    with database.begin() as compacting, ledger.finish(first):
        compact_job_counts(compacting)
        thread = Thread(target=finish_second)
        thread.start()
        thread.join(30)
        waits = thread.is_alive()

    assert not waits
