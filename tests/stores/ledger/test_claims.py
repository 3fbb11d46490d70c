import pytest
from sqlalchemy import text

from nightshift.schema.errors import LeaseLostError, ServiceUnavailableError
from nightshift.schema.states import RunState
from nightshift.stores.ledger import runs
from nightshift.stores.ledger.claims import Ledger
from nightshift.stores.ledger.retries import expire_leases
from nightshift.stores.postgres.database import Database
from tests.stores.ledger_helpers import add_index_run, expire, job_row, make_due


@pytest.fixture
def ledger(database):
    return Ledger(database, worker_id="worker-a", lease_s=30, max_attempts=2)


@pytest.fixture
def other(database):
    return Ledger(database, worker_id="worker-b", lease_s=30, max_attempts=2)


def test_a_claim_counts_the_attempt_before_the_work_starts(database, ledger):
    run_id = add_index_run(database)

    claim = ledger.claim(run_id, 1)

    row = job_row(database, run_id, 1)
    assert claim is not None
    assert (row.state, row.attempt, row.worker_id, row.token) == ("running", 1, "worker-a", 1)


def test_a_redelivered_job_is_dropped(database, ledger, other):
    run_id = add_index_run(database)
    assert ledger.claim(run_id, 1) is not None

    assert other.claim(run_id, 1) is None


def test_a_finished_job_is_never_claimed_again(database, ledger):
    run_id = add_index_run(database)
    claim = ledger.claim(run_id, 1)
    with ledger.finish(claim):
        pass

    assert ledger.claim(run_id, 1) is None


def test_results_and_done_commit_together_or_not_at_all(database, ledger):
    run_id = add_index_run(database)
    claim = ledger.claim(run_id, 1)

    with pytest.raises(RuntimeError), ledger.finish(claim) as connection:
        connection.execute(text("INSERT INTO catalog (name) VALUES ('half-written')"))
        raise RuntimeError

    with database.begin() as connection:
        written = connection.execute(
            text("SELECT count(*) FROM catalog WHERE name = 'half-written'")
        ).scalar_one()
    assert written == 0
    assert job_row(database, run_id, 1).state == "running"


def test_a_zombie_that_wakes_late_writes_nothing(database, ledger, other):
    run_id = add_index_run(database)
    zombie = ledger.claim(run_id, 1)
    expire(database, run_id, 1)
    with database.begin() as connection:
        assert expire_leases(connection, max_attempts=5) == 1
    make_due(database, run_id)
    successor = other.claim(run_id, 1)

    with pytest.raises(LeaseLostError), ledger.finish(zombie) as connection:
        connection.execute(text("INSERT INTO catalog (name) VALUES ('by a zombie')"))
    with pytest.raises(LeaseLostError):
        ledger.renew(zombie)

    with database.begin() as connection:
        written = connection.execute(
            text("SELECT count(*) FROM catalog WHERE name = 'by a zombie'")
        ).scalar_one()
    assert written == 0
    with other.finish(successor):
        pass
    assert job_row(database, run_id, 1).state == "done"


def test_a_handed_back_job_gets_its_attempt_refunded(database, ledger):
    run_id = add_index_run(database)
    claim = ledger.claim(run_id, 1)

    ledger.hand_back(claim, "the worker is stopping")

    row = job_row(database, run_id, 1)
    assert (row.state, row.attempt, row.worker_id) == ("queued", 0, None)


def test_nothing_of_a_paused_run_is_claimed_until_it_resumes(database, ledger):
    run_id = add_index_run(database)
    claim = ledger.claim(run_id, 1)
    with database.begin() as connection:
        runs.set_run_state(connection, run_id, RunState.PAUSED)

    assert ledger.claim(run_id, 2) is None
    assert ledger.renew(claim) is RunState.PAUSED

    with database.begin() as connection:
        runs.set_run_state(connection, run_id, RunState.RUNNING)
    assert ledger.claim(run_id, 2) is not None


def test_a_failed_attempt_is_retried_later(database, ledger):
    run_id = add_index_run(database)
    ledger.fail_attempt(ledger.claim(run_id, 1), "boom", "it broke")

    row = job_row(database, run_id, 1)

    assert (row.state, row.attempt, row.error) == ("queued", 1, "boom: it broke")
    assert ledger.claim(run_id, 1) is None, "back-off is not over"
    make_due(database, run_id)
    assert ledger.claim(run_id, 1).attempt == 2


def test_after_its_own_attempts_a_job_is_bisected_until_the_guilty_item_is_alone(database, ledger):
    run_id = add_index_run(database, n_jobs=1, per_job=4)
    with database.begin() as connection:
        guilty = connection.execute(
            text("SELECT id FROM item ORDER BY id OFFSET 2 LIMIT 1")
        ).scalar_one()

    for _ in range(50):
        make_due(database, run_id)
        with database.begin() as connection:
            queued = connection.execute(
                text("SELECT id FROM job WHERE run_id = :r AND state = 'queued' ORDER BY id"),
                {"r": run_id},
            ).scalar()
        if queued is None:
            break
        claim = ledger.claim(run_id, queued)
        if guilty in claim.payload.ids:
            ledger.fail_attempt(claim, "poison", "cannot be embedded")
        else:
            with ledger.finish(claim):
                pass

    with database.begin() as connection:
        units = connection.execute(
            text("SELECT state, sum(n_units) AS n FROM job WHERE run_id = :r GROUP BY 1"),
            {"r": run_id},
        )
        by_state = {row.state: int(row.n) for row in units}
        failures = connection.execute(
            text("SELECT subject_kind, subject_id, reason FROM failure")
        ).all()
    assert by_state["done"] == 3
    assert by_state["failed"] == 1
    assert [tuple(row) for row in failures] == [("item", "item-2", "poison")]


def test_a_worker_frozen_in_its_last_transaction_holds_up_no_other_job(database, ledger, other):
    run_id = add_index_run(database)
    frozen, dead = ledger.claim(run_id, 1), other.claim(run_id, 2)
    assert frozen is not None
    assert dead is not None
    for job_id in (1, 2):
        expire(database, run_id, job_id)

    with ledger.finish(frozen), database.begin() as connection:
        connection.execute(text("SET LOCAL lock_timeout = '5 s'"))
        taken_back = expire_leases(connection, max_attempts=2)

    assert taken_back == 1
    assert job_row(database, run_id, 1).state == "done"
    assert job_row(database, run_id, 2).state == "queued"


def test_a_transaction_that_stays_open_is_ended_and_frees_its_job(database_url, database, ledger):
    run_id = add_index_run(database)
    claim = ledger.claim(run_id, 1)
    with Database(database_url, transaction_s=1) as frozen_database:
        frozen = Ledger(frozen_database, worker_id="worker-a", lease_s=30, max_attempts=2)

        with pytest.raises(ServiceUnavailableError), frozen.finish(claim) as connection:
            expire(database, run_id, 1)  # waits for the row until the session has been ended
            connection.execute(text("SELECT 1"))

    assert job_row(database, run_id, 1).state == "running"
