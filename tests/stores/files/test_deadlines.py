"""Steps that must be done together by one moment, in threads that are kept."""

import os
import threading

import pytest

from nightshift.stores.files.deadlines import Deadline


def test_what_an_action_returns_or_raises_comes_out():
    deadline = Deadline(60)

    assert deadline.call(lambda: 7) == 7
    with pytest.raises(KeyError, match="x"):
        deadline.call(lambda: {}["x"])
    with pytest.raises(TimeoutError, match="its own"):
        deadline.call(_time_out)


def _time_out() -> None:
    raise TimeoutError("its own")


def test_calls_one_after_another_keep_their_thread():
    """fsspec keeps the connections of an object store by thread."""
    deadline = Deadline(60)

    assert len({deadline.call(threading.get_ident) for _ in range(20)}) < 3


def test_what_does_not_end_is_left_and_others_go_on():
    ended = threading.Event()
    try:
        with pytest.raises(TimeoutError, match="does not answer in time"):
            Deadline(0.1).call(ended.wait)

        assert Deadline(60).call(lambda: 7) == 7
    finally:
        ended.set()


def test_a_moment_that_is_past_ends_every_further_step():
    past = Deadline(-1)

    assert past.passed()
    with pytest.raises(TimeoutError):
        past.left()
    with pytest.raises(TimeoutError):
        past.call(lambda: pytest.fail("it was begun"))
    assert not Deadline(60).passed(after_s=1)
    assert Deadline(60).passed(after_s=61)


def test_as_many_calls_as_there_is_room_for_are_left_and_then_none_is_begun():
    ended = threading.Event()
    begun: list[int] = []
    try:
        for _ in range(70):
            with pytest.raises(TimeoutError):
                Deadline(0.02).call(lambda: begun.append(1) or ended.wait())
        assert len(begun) <= 64
    finally:
        ended.set()

    assert Deadline(60).call(lambda: 7) == 7


def test_a_process_that_was_forked_has_threads_of_its_own():
    assert Deadline(60).call(lambda: 7) == 7
    child = os.fork()
    if not child:
        os._exit(Deadline(60).call(lambda: 7))

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
