"""A job that kills its worker outright counts as an attempt, and is bisected like any other."""

from sqlalchemy import text

from nightshift.stores.ledger import workers
from nightshift.stores.ledger.claims import Ledger
from nightshift.stores.ledger.retries import expire_leases
from nightshift.stores.postgres.database import Database
from tests.stores.ledger_helpers import add_index_run, expire, job_row, make_due


def test_the_item_that_its_workers_do_not_survive_fails_alone(database_url):
    with Database(database_url) as database:
        run_id = add_index_run(database, n_jobs=1, per_job=3)
        with database.begin() as connection:
            poison = connection.execute(text("SELECT max(id) FROM item")).scalar_one()

        for number in range(20):
            make_due(database, run_id)
            with database.begin() as connection:
                job = connection.execute(
                    text("SELECT id FROM job WHERE state = 'queued' ORDER BY id LIMIT 1")
                ).scalar()
            if job is None:
                break
            _work(database, f"worker-{number}", run_id, job, poison)

        with database.begin() as connection:
            failed = connection.execute(text("SELECT subject_id, reason FROM failure")).all()
            ended = connection.execute(
                text("SELECT state, n_units, attempt FROM job ORDER BY id")
            ).all()
    assert [tuple(row) for row in failed] == [("item-2", "worker_lost")]
    assert [tuple(row) for row in ended] == [
        ("split", 3, 2), ("done", 1, 1), ("split", 2, 2), ("done", 1, 1), ("failed", 1, 2),
    ]  # fmt: skip


def test_a_worker_that_still_reports_has_only_been_too_slow(database_url):
    with Database(database_url) as database:
        run_id = add_index_run(database, n_jobs=1, per_job=1)
        _register(database, "slow")
        Ledger(database, worker_id="slow", lease_s=60, max_attempts=2).claim(run_id, 1)
        expire(database, run_id, 1)
        with database.begin() as connection:
            expire_leases(connection, max_attempts=2)

        assert job_row(database, run_id, 1).error.startswith("lease_expired: worker slow")


def _work(database, name, run_id, job_id, poison):
    """Do the job; where the poison is in it, fall silent for good."""
    _register(database, name)
    ledger = Ledger(database, worker_id=name, lease_s=60, max_attempts=2)
    claim = ledger.claim(run_id, job_id)
    if poison not in claim.payload.ids:
        with ledger.finish(claim):
            return
    expire(database, run_id, job_id)
    with database.begin() as connection:
        connection.execute(
            text("UPDATE worker SET seen_at = now() - interval '6 s' WHERE id = :id"), {"id": name}
        )
        expire_leases(connection, max_attempts=2)


def _register(database, name):
    with database.begin() as connection:
        workers.register(connection, worker_id=name, host="h", pid=1, device="cpu", stages="embed")
