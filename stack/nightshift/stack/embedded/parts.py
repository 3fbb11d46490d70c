"""The processes of a data directory's parts: services, dispatcher and workers."""

import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from nightshift.stack.embedded import process
from nightshift.stack.embedded.process import Launch, ProcessRecord, StopRule
from nightshift.stack.embedded.state import SERVICES
from nightshift.stack.embedded.status import PartStatus

__all__ = ["Parts"]

_log = logging.getLogger(__name__)


class Parts:
    """Starts and stops the parts of one data directory, and keeps a pid file and a log of each.

    Args:
        data_dir: The data directory.
        service_stop_rules: Service name → how it is stopped.
    """

    def __init__(self, data_dir: Path, service_stop_rules: Mapping[str, StopRule]) -> None:
        self._data_dir = data_dir
        self._run_dir = data_dir / "run"
        self._service_stop_rules = service_stop_rules

    def log_path(self, name: str) -> Path:
        """The log of a part."""
        return self._data_dir / "logs" / f"{name}.log"

    def recorded(self) -> dict[str, bool]:
        """The parts that were started and not stopped → whether their processes live."""
        return {path.stem: self.is_running(path.stem) for path in self._run_dir.glob("*.json")}

    def worker_numbers(self) -> list[int]:
        """The numbers of the recorded workers, sorted."""
        names = (path.stem for path in self._run_dir.glob("worker-*.json"))
        return sorted(int(name.removeprefix("worker-")) for name in names)

    def record(self, name: str) -> ProcessRecord | None:
        """The pid file of a part that this directory started, whether it runs or has ended."""
        record = process.read_record(self._record_path(name))
        if record is None or name not in SERVICES or not process.is_alive(record):
            return record
        # The folder may be a copy that got the inode of the deleted original.
        return record if process.works_in(record, self._data_dir / name) else None

    def living(self, name: str) -> ProcessRecord | None:
        """The pid file of a part that runs; None if it does not run."""
        record = self.record(name)
        return record if record is not None and process.is_alive(record) else None

    def is_running(self, name: str) -> bool:
        """True if the part's process lives."""
        return self.living(name) is not None

    def has_earlier_version(self) -> bool:
        """True if a program of an earlier version runs that does not fit the present ones."""
        records = map(process.read_record, self._run_dir.glob("*.json"))
        return any(record and process.is_earlier(record, self._data_dir) for record in records)

    def spawn(self, name: str, launch: Launch) -> ProcessRecord:
        """Start a part."""
        return process.spawn(launch, self.log_path(name), self._record_path(name))

    def ensure_program(self, name: str, launch: Launch) -> None:
        """Start the dispatcher or a worker unless it runs already, for the same addresses."""
        record = self.living(name)
        if record is not None:
            if record.digest == launch.digest:
                return
            self.stop(name)  # it was started for other addresses
        self.spawn(name, launch)

    def stop(self, name: str, grace_s: float = 30.0) -> None:
        """Stop a part by its own signal; kill it if it does not end in time."""
        record = self.record(name)
        if record is None:
            return
        rule = self._service_stop_rules.get(name) or StopRule(wait_s=grace_s + 5.0)
        if not process.stop(record, rule):
            _log.warning("%s (pid %d) had to be killed after %.0f s", name, record.pid, rule.wait_s)
        self._record_path(name).unlink(missing_ok=True)

    def stop_all(self, grace_s: float = 30.0) -> tuple[str, ...]:
        """Stop the programs at the same time, then the services one by one.

        Returns:
            The names of the parts that were running.
        """
        programs = ["dispatcher", *(f"worker-{number}" for number in self.worker_numbers())]
        running = [name for name in (*SERVICES, *programs) if self.is_running(name)]
        programs = [name for name in programs if name in running]
        with ThreadPoolExecutor(max(1, len(programs))) as pool:
            list(pool.map(lambda name: self.stop(name, grace_s), programs))
        for name in reversed(SERVICES):
            self.stop(name)
        for path in self._run_dir.glob("*.json"):
            if not process.is_copied(path):  # `up` needs those: they show that a copy may be torn
                path.unlink()
        return tuple(running)

    def status(
        self, name: str, address: str = "", alive: Literal["running", "silent"] = "running"
    ) -> PartStatus:
        """The state of a part; `alive` is what a living process counts as."""
        record, log = self.record(name), self.log_path(name)
        if record is None:
            return PartStatus(name=name, state="stopped", address=address, log=log)
        if not process.is_alive(record):
            return PartStatus(name=name, state="died", address=address, log=log)
        uptime_s = max(0.0, time.time() - record.started_at)
        return PartStatus(
            name=name, state=alive, pid=record.pid, address=address, uptime_s=uptime_s, log=log
        )

    def _record_path(self, name: str) -> Path:
        return self._run_dir / f"{name}.json"
