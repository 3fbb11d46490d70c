"""Real worker and dispatcher processes on a test's own database and Redis."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import text

from nightshift.schema.settings import Settings
from nightshift.stores.ledger import runs
from nightshift.stores.postgres.database import Database


@dataclass
class Night:
    """Processes started for one test; all are stopped at its end."""

    settings: Settings
    logs: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def dispatcher(self) -> subprocess.Popen[bytes]:
        return self._start("dispatcher")

    def worker(self, *arguments: str) -> subprocess.Popen[bytes]:
        return self._start("worker", *arguments)

    def program(self, words: list[str]) -> subprocess.Popen[bytes]:
        """A program that the compose file starts, by its words."""
        return self._launch(words[1], [str(Path(sys.executable).with_name(words[0])), *words[1:]])

    def odd_worker(self, oddity: str) -> subprocess.Popen[bytes]:
        """A worker that runs some lines of Python before it begins to work."""
        lines = f"{oddity}\nfrom nightshift.cli.main import main\nmain(['worker'])"
        return self._start("odd-worker", python=["-c", lines])

    def cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "nightshift.cli.main", *arguments],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        if check:
            assert done.returncode == 0, done.stderr + done.stdout
        return done

    def environment(self) -> dict[str, str]:
        settings = self.settings
        assert settings.database_url
        assert settings.redis_url
        assert settings.milvus_uri
        token = settings.milvus_token
        return {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "NIGHTSHIFT_DATA_DIR": str(settings.data_dir),
            "NIGHTSHIFT_DATABASE_URL": settings.database_url.get_secret_value(),
            "NIGHTSHIFT_REDIS_URL": settings.redis_url.get_secret_value(),
            "NIGHTSHIFT_MILVUS_URI": settings.milvus_uri,
            "NIGHTSHIFT_MILVUS_TOKEN": token.get_secret_value() if token else "",
            "NIGHTSHIFT_LEASE_S": str(settings.lease_s),
            "NIGHTSHIFT_GRACE_S": str(settings.grace_s),
            "NIGHTSHIFT_MAX_ATTEMPTS": str(settings.max_attempts),
        }

    def log_of(self, process: subprocess.Popen[bytes]) -> str:
        (log,) = self.logs.glob(f"*-{self.processes.index(process)}.log")
        return log.read_text()

    def wait_for_run(self, run_id: int, timeout_s: float = 200) -> str:
        """The state in which the run ended."""

        def ended() -> str | None:
            with Database(self._database_url()) as database, database.begin() as connection:
                state = runs.get_run(connection, run_id).state
            return state.value if state.value in {"done", "failed", "cancelled"} else None

        return self.wait_until(ended, timeout_s)

    def wait_until(self, check: Callable[[], str | None], timeout_s: float = 60) -> str:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            result = check()
            if result:
                return result
            time.sleep(0.1)
        logs = "\n".join(
            f"--- {log.name}\n{log.read_text()[-3000:]}" for log in self.logs.iterdir()
        )
        raise AssertionError(f"nothing after {timeout_s} s\n{logs}")

    def rows(self, statement: str, **values: object) -> list[tuple[object, ...]]:
        with Database(self._database_url()) as database, database.begin() as connection:
            return [tuple(row) for row in connection.execute(text(statement), values)]

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)

    def _database_url(self) -> str:
        assert self.settings.database_url
        return self.settings.database_url.get_secret_value()

    def _start(self, *command: str, python: list[str] | None = None) -> subprocess.Popen[bytes]:
        arguments = python or ["-m", "nightshift.cli.main", *command]
        return self._launch(command[0], [sys.executable, *arguments])

    def _launch(self, name: str, argv: list[str]) -> subprocess.Popen[bytes]:
        log = (self.logs / f"{name}-{len(self.processes)}.log").open("wb")
        with log:
            process = subprocess.Popen(
                argv,
                env=self.environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)
        return process
