"""A log does not fill up with one error."""

import io
import logging

import pytest

from nightshift.cli import logs
from nightshift.cli.logs import RepeatedMessageFilter


@pytest.fixture
def log() -> tuple[logging.Logger, io.StringIO]:
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.addFilter(RepeatedMessageFilter())
    logger = logging.getLogger(f"test.{id(text)}")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    return logger, text


def _fails(logger: logging.Logger, number: int, kind: type[Exception] = ValueError) -> None:
    try:
        _gone(kind(f"gone at 12:00:{number:02}"))
    except Exception:
        logger.exception("a round failed")


def _gone(error: Exception) -> None:
    raise error


def test_one_traceback_is_written_once_though_numbers_in_it_differ(log):
    logger, text = log
    for number in range(50):
        _fails(logger, number)

    assert text.getvalue().count("Traceback") == 1
    _fails(logger, 0, KeyError)
    assert text.getvalue().count("Traceback") == 2, "another error is written"


def test_the_same_line_is_written_once_and_others_all(log):
    logger, text = log
    for number in range(3):
        logger.warning("waiting for %s", "redis")
        logger.warning("run %d: waits", number)
        logger.info("progress")

    lines = text.getvalue().splitlines()
    assert lines.count("waiting for redis") == 1
    assert lines.count("progress") == 3
    assert "run 2: waits" in lines


def test_what_was_kept_back_is_counted_when_it_is_written_again(log, monkeypatch):
    logger, text = log
    for _ in range(4):
        logger.error("gone")
    later = logs.monotonic() + 61
    monkeypatch.setattr(logs, "monotonic", lambda: later)
    logger.error("gone")

    assert text.getvalue().splitlines() == ["gone", "gone (3 more times since)"]


def test_what_is_remembered_is_bounded(log):
    logger, _ = log
    for number in range(3000):
        logger.warning("message %d", number)

    (handler,) = logger.handlers
    (kept,) = handler.filters
    assert len(kept._logged) <= 1001
