"""A job that cannot have its model: the run ends, unless somebody has stopped it already."""

from types import SimpleNamespace

import pytest
from sqlalchemy import text

from nightshift.schema.errors import ModelError
from nightshift.schema.states import RunState
from nightshift.stores.ledger import runs
from nightshift.stores.ledger.claims import Ledger
from nightshift.workers import do_job
from nightshift.workers.do_job import _use_model, do_claimed
from tests.stores.ledger_helpers import add_index_run, job_row, make_due

_MISSING = ModelError("hf:/gone cannot be loaded: no such directory")


@pytest.fixture
def session(database):
    """A worker's, whose jobs have one attempt."""
    ledger = Ledger(database, worker_id="w", lease_s=60, max_attempts=1)
    settings = SimpleNamespace(max_attempts=1, lease_s=60.0)
    return SimpleNamespace(
        database=database, ledger=ledger, settings=settings, neighbours=1, in_hand=None
    )


def _claim_and(session, run_id, between):
    """Claim the run's first job; after `between`, learn that its model does not load."""
    claim = session.ledger.claim(run_id, 1)
    between()
    do_claimed(session, claim, _MISSING)


def _state(database, run_id):
    with database.begin() as connection:
        return runs.get_run(connection, run_id).state


def _failures(database):
    with database.begin() as connection:
        rows = connection.execute(text("SELECT subject_kind, reason, message FROM failure"))
        return [tuple(row) for row in rows]


def _set(database, run_id, *states):
    for state in states:
        with database.begin() as connection:
            runs.set_run_state(connection, run_id, state)


def test_a_run_without_its_model_fails_with_the_reason(database, session):
    run_id = add_index_run(database, n_jobs=2)

    _claim_and(session, run_id, lambda: None)

    assert _state(database, run_id) is RunState.FAILED
    assert _failures(database) == [("job", "model_error", str(_MISSING))]


def test_a_paused_run_stays_paused_and_fails_when_it_goes_on(database, session):
    run_id = add_index_run(database, n_jobs=2)

    _claim_and(session, run_id, lambda: _set(database, run_id, RunState.PAUSED))

    job = job_row(database, run_id, 1)
    assert (job.state, job.attempt, job.error) == ("queued", 0, str(_MISSING))
    assert (_state(database, run_id), _failures(database)) == (RunState.PAUSED, [])

    _set(database, run_id, RunState.RUNNING)
    make_due(database, run_id)
    _claim_and(session, run_id, lambda: None)
    assert _state(database, run_id) is RunState.FAILED


@pytest.mark.parametrize("state", [RunState.CANCELLED, RunState.DONE])
def test_a_run_that_has_ended_meanwhile_stays_as_it_ended(database, session, state):
    run_id = add_index_run(database, n_jobs=2)

    _claim_and(session, run_id, lambda: _set(database, run_id, state))

    assert (_state(database, run_id), _failures(database)) == (state, [])
    assert job_row(database, run_id, 1).state == "queued", "it is not cut in two"


def test_a_zombie_ends_no_run(database, session):
    run_id = add_index_run(database, n_jobs=2)
    other = Ledger(database, worker_id="other", lease_s=60, max_attempts=1)

    def lose_the_lease() -> None:
        with database.begin() as connection:
            connection.execute(
                text("UPDATE job SET state = 'queued', lease_until = NULL WHERE id = 1")
            )
        other.claim(run_id, 1)

    _claim_and(session, run_id, lose_the_lease)

    assert (_state(database, run_id), _failures(database)) == (RunState.RUNNING, [])
    assert job_row(database, run_id, 1).worker_id == "other"


@pytest.mark.parametrize(
    ("said", "ended"),
    [
        ("CUDA error: device-side assert triggered", [70]),
        # Nothing is broken: a smaller batch, or another worker's end, makes room.
        ("CUDA error: out of memory", []),
        ("CUDA out of memory. Tried to allocate 2.00 GiB", []),
        ("no such file", []),
    ],
)
def test_a_load_that_breaks_the_gpu_s_context_ends_the_worker(
    said, ended, database, session, monkeypatch
):
    def load(*_):
        raise RuntimeError(said)

    exits = []
    monkeypatch.setattr(do_job.os, "_exit", exits.append)
    session.models = SimpleNamespace(embedder=load)
    run_id = add_index_run(database, n_jobs=1)
    with database.begin() as connection:
        run = runs.get_run(connection, run_id)

    error = _use_model(session, run)

    assert exits == ended
    assert said in str(error)
