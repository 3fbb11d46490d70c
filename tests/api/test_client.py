"""Connecting, waiting and asking for what is not there."""

import pytest

from nightshift import api
from nightshift.schema.errors import ConfigurationError, NightshiftError
from nightshift.schema.states import RunState
from tests.results.ranked import add_reference_run


def test_connect_takes_a_folder_or_settings(settings, tmp_path):
    with pytest.raises(ConfigurationError, match="not both"):
        api.connect(tmp_path, settings=settings)


def test_a_folder_without_a_stack_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="nightshift up"):
        api.connect(tmp_path)


def test_waiting_ends_with_the_time(database, settings, tmp_path):
    add_reference_run(database, tmp_path)

    with (
        api.connect(settings=settings) as ns,
        pytest.raises(api.WaitTimeoutError, match="run 1 has not ended after 0 s"),
    ):
        ns.wait(1, timeout_s=0)


def test_a_run_that_is_not_done_can_be_refused():
    api.RunEnd(run_id=7, state=RunState.DONE, reasons={"image_missing": 2}).require_done()
    for state in (RunState.FAILED, RunState.CANCELLED, RunState.RUNNING):
        with pytest.raises(NightshiftError, match=f"run 7 is {state.value}"):
            api.RunEnd(run_id=7, state=state).require_done()


def test_an_unknown_method_is_refused_before_anything_is_read(database, settings):
    request = api.RerankRequest(
        catalog="none", queries="none.jsonl", scorer="none", method="telepathy"
    )

    with (
        api.connect(settings=settings) as ns,
        pytest.raises(ConfigurationError, match="no method is called 'telepathy'"),
    ):
        ns.rerank(request)
