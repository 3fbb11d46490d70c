"""A model that ends the workers that load it fails its run; what else ends workers does not."""

import pytest
from sqlalchemy import text

from nightshift.producers.retry import retry_failed
from nightshift.schema.states import RunState
from nightshift.stores.ledger import load_reports, runs, workers
from tests.stores.ledger_helpers import FINGERPRINT, add_index_run


@pytest.fixture
def run_id(database):
    return add_index_run(database, n_jobs=1)


def _begin(database, name, run_id, model=FINGERPRINT):
    with database.begin() as connection:
        workers.register(connection, worker_id=name, host="h", pid=1, device="cpu", stages="embed")
        facts = {"device": "cpu", "model": None, "loading": model, "run_id": run_id,
                 "job_id": None, "units_per_s": None}  # fmt: skip
        workers.report(connection, name, facts)


def _lose(database, name, run_id, *, began_s_ago, seen_s_ago=20.0):
    """A worker that was killed while it loaded."""
    _begin(database, name, run_id)
    with database.begin() as connection:
        connection.execute(
            text(
                "UPDATE worker SET loading_since = clock_timestamp() - make_interval(secs => :b), "
                "seen_at = clock_timestamp() - make_interval(secs => :s) WHERE id = :id"
            ),
            {"id": name, "b": began_s_ago, "s": seen_s_ago},
        )


def _lose_one_after_another(database, run_id, n):
    for number in range(n):
        ago = 1000.0 - 60 * number
        _lose(database, f"worker-{number}", run_id, began_s_ago=ago, seen_s_ago=ago - 30)


def _judge(database):
    with database.begin() as connection:
        return load_reports.fail_runs_that_end_workers(connection, max_attempts=3)


def _state(database, run_id):
    with database.begin() as connection:
        return runs.get_run(connection, run_id).state


def test_after_its_attempts_the_run_fails_and_says_which_model_and_worker(database, run_id):
    _lose_one_after_another(database, run_id, 2)
    assert _judge(database) == []

    _lose(database, "the-last", run_id, began_s_ago=100, seen_s_ago=60)

    assert _judge(database) == [run_id]
    assert _state(database, run_id) is RunState.FAILED
    with database.begin() as connection:
        ((kind, reason, message),) = connection.execute(
            text("SELECT subject_kind, reason, message FROM failure")
        ).all()
    assert (kind, reason) == ("job", "worker_lost")
    assert "3 workers" in message
    assert f"open_clip:test ({FINGERPRINT})" in message
    assert "the-last" in message
    assert f"retry-failed {run_id}" in message


def test_workers_that_were_lost_at_once_count_as_one(database, run_id):
    for number in range(8):
        _lose(database, f"worker-{number}", run_id, began_s_ago=30 + number)

    assert _judge(database) == []


def test_a_worker_that_still_reports_only_loads_slowly(database, run_id):
    _lose_one_after_another(database, run_id, 2)
    _begin(database, "slow", run_id)

    assert _judge(database) == []


def test_a_worker_that_was_stopped_in_order_does_not_count(database, run_id):
    _lose_one_after_another(database, run_id, 3)
    with database.begin() as connection:
        workers.retire(connection, "worker-1")

    assert _judge(database) == []


def test_a_model_that_somebody_has_loaded_is_not_what_ends_workers(database, run_id):
    _lose_one_after_another(database, run_id, 3)
    with database.begin() as connection:
        load_reports.forget_lost_loads(connection, FINGERPRINT)

    assert _judge(database) == []


def test_another_runs_losses_are_not_this_ones(database, run_id):
    other = add_index_run(database, n_jobs=2)
    _lose_one_after_another(database, run_id, 2)
    _lose(database, "of-the-other", other, began_s_ago=100, seen_s_ago=60)

    assert _judge(database) == []


def test_a_paused_run_is_judged_when_it_goes_on(database, run_id):
    _lose_one_after_another(database, run_id, 3)
    with database.begin() as connection:
        runs.set_run_state(connection, run_id, RunState.PAUSED)
    assert _judge(database) == []

    with database.begin() as connection:
        runs.set_run_state(connection, run_id, RunState.RUNNING)
    assert _judge(database) == [run_id]


def test_a_run_that_is_taken_up_again_has_all_its_attempts(database, run_id):
    _lose_one_after_another(database, run_id, 3)
    _judge(database)

    retry_failed(database, run_id)

    assert _judge(database) == []
    assert _state(database, run_id) is RunState.RUNNING


def test_nobody_follows_a_worker_into_a_load_until_it_is_known_what_became_of_it(database, run_id):
    def in_doubt():
        with database.begin() as connection:
            return load_reports.load_in_doubt(connection, run_id, FINGERPRINT)

    _begin(database, "loads", run_id)
    assert in_doubt() is None, "it reports: several may load at a time"
    _lose(database, "late", run_id, began_s_ago=8, seen_s_ago=6)
    assert in_doubt() == "late"
    with database.begin() as connection:
        connection.execute(text("UPDATE worker SET seen_at = seen_at - interval '20 s'"))
    assert in_doubt() is None, "they count as lost now"
