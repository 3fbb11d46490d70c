"""A service that dies is started again; a service that was stopped stays stopped."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread

import pytest

from nightshift.schema.errors import ConflictError
from nightshift.stack import Stack, Supervisor, only_supervisor
from nightshift.stack.embedded import process

_UP = ["-m", "nightshift.cli.main", "up", "--supervise", "--workers", "0"]


@pytest.fixture(scope="module")
def own() -> Iterator[Stack]:
    """A data directory of this module's own."""
    with TemporaryDirectory(prefix="ns-sup-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        yield Stack(Path(folder) / "data")


@pytest.fixture
def supervised(own: Stack) -> Iterator[tuple[Stack, subprocess.Popen[str]]]:
    """A stack with `up --supervise` beside it, when everything runs."""
    watching = subprocess.Popen(
        [sys.executable, *_UP, "--data-dir", str(own.data_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        _wait_until(lambda: len(_alive(own)) == 4)
        yield own, watching
    finally:
        watching.terminate()
        watching.wait(60)
        own.down()


def test_a_service_that_dies_is_started_again_until_the_supervisor_stops(supervised):
    stack, watching = supervised
    for name in ("redis", "dispatcher", "milvus"):
        before = _pid(stack, name)
        stack.kill(name)
        _wait_until(lambda name=name, before=before: _pid(stack, name) not in (None, before))
    with pytest.raises(ConflictError, match="watches over"), only_supervisor(stack):
        pass

    watching.send_signal(signal.SIGTERM)
    said = watching.communicate(timeout=90)[0]

    assert watching.returncode == 0
    assert _alive(stack) == []
    assert stack.recorded() == {}
    assert "redis died and was started again" in said
    assert "stopped " in said


def test_the_supervisor_ends_when_the_stack_is_stopped_by_another(supervised):
    stack, watching = supervised
    stack.down()

    assert "nightshift down" in watching.communicate(timeout=90)[0]
    assert watching.returncode == 0
    assert _alive(stack) == []


class _Breaking(Stack):
    """A stack whose part never comes up."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        self.started: list[float] = []

    def recorded(self) -> dict[str, bool]:
        return {"redis": False}

    def start(self, name: str) -> bool:
        self.started.append(time.monotonic())
        if len(self.started) == 1:
            raise RuntimeError("whatever")
        return True


def test_a_part_that_keeps_dying_is_started_after_pauses_that_grow(tmp_path: Path):
    stack, stop = _Breaking(tmp_path), Event()
    supervisor = Supervisor(stack, check_every_s=0.01, first_pause_s=0.1)
    watching = Thread(target=supervisor.watch, args=(stop,))
    watching.start()
    _wait_until(lambda: len(stack.started) >= 4)
    stop.set()
    watching.join()

    first, second, third, fourth = stack.started[:4]
    assert second - first >= 0.1
    assert third - second >= 0.2
    assert fourth - third >= 0.4


def test_a_part_that_was_stopped_is_not_started(stack: Stack):
    assert stack.start("dispatcher") is False
    assert stack.start("redis") is False, "it runs"


def _alive(stack: Stack) -> list[str]:
    return [name for name, alive in stack.recorded().items() if alive]


def _pid(stack: Stack, name: str) -> int | None:
    record = process.read_record(stack.data_dir / "run" / f"{name}.json")
    return record.pid if record is not None and Path(f"/proc/{record.pid}").exists() else None


def _wait_until(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.1)
