"""Steering runs, receipts, workers and checks from Python."""

import pytest
from sqlalchemy import text

from nightshift import api
from nightshift.schema.errors import ConfigurationError, ConflictError, NotFoundError
from nightshift.schema.states import RunState
from nightshift.stack import StackState
from tests.results.ranked import add_reference_run


@pytest.fixture
def ns(settings):
    with api.connect(settings=settings) as client:
        yield client


def test_a_run_is_paused_resumed_and_cancelled(ns, database):
    run = add_reference_run(database)
    with database.begin() as connection:
        connection.execute(text("UPDATE run SET state = 'running', finished_at = NULL"))

    assert ns.pause(run) is RunState.PAUSED
    assert ns.resume(run) is RunState.RUNNING
    assert ns.cancel(run) is RunState.CANCELLED
    assert ns.run(run).progress.run.state is RunState.CANCELLED
    with pytest.raises(ConflictError, match="cancelled"):
        ns.resume(run)


def test_a_run_that_does_not_exist_cannot_be_steered(ns):
    for steer in (ns.pause, ns.resume, ns.cancel, ns.retry_failed, ns.verify):
        with pytest.raises(NotFoundError):
            steer(7)


def test_the_receipt_names_its_run(ns, database):
    run = add_reference_run(database)

    receipt = ns.verify(run)

    assert receipt.run_id == run
    assert receipt.balances


def test_only_an_ended_run_is_retried(ns, database):
    run = add_reference_run(database)
    with database.begin() as connection:
        connection.execute(text("UPDATE run SET state = 'running', finished_at = NULL"))

    with pytest.raises(ConflictError):
        ns.retry_failed(run)


def test_no_worker_is_listed_where_none_runs(ns):
    assert ns.workers(include_stopped=True) == []


def test_the_doctor_works_while_no_service_runs(tmp_path):
    state = StackState()
    for service in ("postgres", "redis", "milvus"):
        state.choose_port(service)
    state.save(tmp_path)

    levels = {(finding.check, finding.level) for finding in api.doctor(tmp_path)}

    assert {(service, "error") for service in ("postgres", "redis", "milvus")} <= levels


def test_the_doctor_takes_a_folder_or_settings(settings, tmp_path):
    with pytest.raises(ConfigurationError, match="not both"):
        api.doctor(tmp_path, settings=settings)
