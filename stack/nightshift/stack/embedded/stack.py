"""`nightshift up | down | status`: services, dispatcher and workers of one data directory."""

import logging
import os
import signal
import sys
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from nightshift.migrations import upgrade
from nightshift.schema.errors import (
    ConfigurationError,
    ConflictError,
    NotFoundError,
    ServiceUnavailableError,
)
from nightshift.stack.embedded import process
from nightshift.stack.embedded.home import adopt, make_private
from nightshift.stack.embedded.postgres import Postgres
from nightshift.stack.embedded.process import Launch, ProcessRecord
from nightshift.stack.embedded.relocation import rewrite_addresses
from nightshift.stack.embedded.service import MilvusLite, Redis, Service
from nightshift.stack.embedded.state import (
    HOST,
    SERVICES,
    Home,
    ServiceUrls,
    StackState,
    exclusive,
    port_is_free,
)
from nightshift.stack.embedded.status import PartStatus, StackStatus
from nightshift.stores.postgres.database import Database

__all__ = ["Stack"]

#: A service that has not answered for this long while starting is given up; Redis answers only
#: after it has read its append-only file.
_START_S = 180.0

_log = logging.getLogger(__name__)


class Stack:
    """The embedded stack of a data directory.

    Args:
        data_dir: Created by `up` when it is not there.
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.expanduser().resolve()

    def up(
        self,
        workers: int = 1,
        *,
        dispatcher: bool = True,
        services: Collection[str] = SERVICES,
    ) -> StackStatus:
        """Start what does not run, and bring the database up to date.

        Args:
            workers: At least so many are to run; those that died are restarted. 0 leaves the
                workers as they are.
            dispatcher: Whether the dispatcher is to run.
            services: Which services are to run.

        Raises:
            ServiceUnavailableError: When a service does not come up; carries the end of its log.
            ConflictError: When another `up` or `down` holds the directory, or it is a copy that was
                made while services ran.
        """
        make_private(self.data_dir)
        with exclusive(self.data_dir):
            state = StackState.load(self.data_dir) or StackState()
            if state.restoring:
                raise ConflictError(
                    f"a restore into {self.data_dir} was interrupted: delete the directory and "
                    "restore again"
                )
            if adopt(self.data_dir, state) or self._runs_earlier_version():
                self._stop_all()
            state.save(self.data_dir)
            for service in _services(self.data_dir, state):
                if service.name in services:
                    self._ensure_service(service, state)
            urls = state.urls()
            if "postgres" in services:
                upgrade(urls.database_url)
                self._correct_addresses(state)
            if dispatcher:
                self._ensure_program("dispatcher", urls)
            if workers:
                for number in range(1, max(workers, *self._worker_numbers(), 0) + 1):
                    self._ensure_program(f"worker-{number}", urls)
            return self.status()

    def down(self, grace_s: float = 30.0) -> tuple[str, ...]:
        """Stop everything that `up` started, and nothing else.

        Args:
            grace_s: Seconds that workers may take to finish the job in hand.

        Returns:
            The names of the parts that were running.
        """
        if StackState.load(self.data_dir) is None:
            return ()
        with exclusive(self.data_dir):
            return self._stop_all(grace_s)

    def status(self) -> StackStatus:
        """What runs, at this moment; starts and changes nothing."""
        state = StackState.load(self.data_dir) or StackState()
        parts = [
            self._service_status(service, state) for service in _services(self.data_dir, state)
        ]
        programs = ["dispatcher", *(f"worker-{number}" for number in self._worker_numbers())]
        parts += [self._part_status(name) for name in programs]
        return StackStatus(data_dir=self.data_dir, parts=tuple(parts))

    def urls(self) -> ServiceUrls:
        """Addresses of the services, whether they run or not.

        Raises:
            ConfigurationError: When no stack was ever started here, or only in what this directory
                is a copy of.
        """
        state = StackState.load(self.data_dir)
        if state is None:
            raise ConfigurationError(f"there is no stack in {self.data_dir}: run `nightshift up`")
        if state.home is not None and not state.home.is_same(Home.of(self.data_dir)):
            raise ConfigurationError(
                f"{self.data_dir} is a copy of {state.home.path}, and its own stack was not "
                "started yet: run `nightshift up`"
            )
        return state.urls()

    @contextmanager
    def restoring(self) -> Iterator[ServiceUrls]:
        """Postgres and Milvus of a new data directory, to be filled and then stopped.

        Until the block has ended without an error, `up` refuses the directory.

        Raises:
            ConflictError: When there is something in the directory.
            ServiceUnavailableError: As `up`.
        """
        if self.data_dir.exists() and any(self.data_dir.iterdir()):
            raise ConflictError(
                f"{self.data_dir} is not empty: name another directory with --data-dir, or stop "
                "the stack there (`nightshift down`) and move it away"
            )
        make_private(self.data_dir)
        with exclusive(self.data_dir):
            state = StackState(restoring=True)
            adopt(self.data_dir, state)
            state.save(self.data_dir)
            try:
                for service in _services(self.data_dir, state):
                    if service.name != "redis":
                        self._ensure_service(service, state)
                yield state.urls()
            finally:
                self._stop_all()
            state.restoring = False
            state.save(self.data_dir)

    def is_running(self, name: str) -> bool:
        """Whether the part's process lives."""
        record = self._known(name)
        return record is not None and process.is_alive(record)

    def kill(self, name: str) -> None:
        """End a part with SIGKILL, as a crash would; `up` starts it again.

        Raises:
            NotFoundError: When it does not run.
        """
        record = self._known(name)
        if record is None or not process.is_alive(record):
            raise NotFoundError(f"{name} of {self.data_dir} is not running: see nightshift status")
        process.stop(record, signal.SIGKILL, 10.0)

    def prepare(self) -> None:
        """Make the data directory and those in it."""
        make_private(self.data_dir)

    def recorded(self) -> dict[str, bool]:
        """The parts that were started and not stopped → whether their processes live."""
        return {path.stem: self.is_running(path.stem) for path in self._run_dir.glob("*.json")}

    def start(self, name: str) -> bool:
        """Start a part that died, and programs again whose addresses changed by it.

        Returns:
            Whether it was started: not where it runs, or was stopped.

        Raises:
            ServiceUnavailableError: When a service does not come up; carries the end of its log.
            ConflictError: When another `up` or `down` holds the directory.
        """
        with exclusive(self.data_dir):
            state = StackState.load(self.data_dir)
            if state is None or self.recorded().get(name, True):
                return False
            for service in _services(self.data_dir, state):
                if service.name == name:
                    self._ensure_service(service, state)
            programs = [other for other in self.recorded() if other not in SERVICES]
            for other in programs:
                if other == name or self.is_running(other):
                    self._ensure_program(other, state.urls())
            return True

    def restart(self, name: str) -> None:
        """Stop a part cleanly and start it again.

        Raises:
            NotFoundError: When there is no part of that name.
        """
        self.status().part(name)
        with exclusive(self.data_dir):
            self._stop(name)
        index = name.removeprefix("worker-")
        self.up(
            int(index) if index.isdigit() else 0,
            dispatcher=name == "dispatcher",
            services={name} & set(SERVICES),
        )

    @property
    def _run_dir(self) -> Path:
        return self.data_dir / "run"

    def _record(self, name: str) -> Path:
        return self._run_dir / f"{name}.json"

    def _log(self, name: str) -> Path:
        return self.data_dir / "logs" / f"{name}.log"

    def _worker_numbers(self) -> list[int]:
        names = (path.stem for path in self._run_dir.glob("worker-*.json"))
        return sorted(int(name.removeprefix("worker-")) for name in names)

    def _known(self, name: str) -> ProcessRecord | None:
        """The record of a part that this directory started, whether it runs still or has ended."""
        record = process.read_record(self._record(name))
        if record is None or name not in SERVICES or not process.is_alive(record):
            return record
        # The folder may be a copy that got the inode of the deleted original.
        return record if process.works_in(record, self.data_dir / name) else None

    def _runs_earlier_version(self) -> bool:
        """Whether programs of a version run here that would not fit those that are started now."""
        records = map(process.read_record, self._run_dir.glob("*.json"))
        return any(record and process.is_earlier(record, self.data_dir) for record in records)

    def _stop_all(self, grace_s: float = 30.0) -> tuple[str, ...]:
        running = [part.name for part in self.status().parts if part.pid is not None]
        programs = [name for name in running if name not in SERVICES]
        with ThreadPoolExecutor(max(1, len(programs))) as pool:
            list(pool.map(lambda name: self._stop(name, grace_s), programs))
        for name in reversed(SERVICES):
            self._stop(name)
        for record in self._run_dir.glob("*.json"):
            if not process.is_copied(record):  # by those `up` knows that a copy may be torn
                record.unlink()
        return tuple(running)

    def _correct_addresses(self, state: StackState) -> None:
        """After a move: let the database name blobs and tokens where they are now."""
        if state.moved_from is not None:
            with Database(state.urls().database_url) as database, database.begin() as connection:
                rewrite_addresses(connection, Path(state.moved_from), self.data_dir)
            state.moved_from = None
            state.save(self.data_dir)

    def _ensure_service(self, service: Service, state: StackState) -> None:
        record = self._known(service.name)
        if record is not None and process.is_alive(record) and self._await(service, record):
            return
        for _ in range(3):
            # Workers know this port: it is given up only when another program keeps it.
            if not port_is_free(state.port(service.name), wait_s=2.0):
                state.change_port(service.name)
            service.prepare()
            state.save(self.data_dir)
            log = self._log(service.name)
            record = process.spawn(service.launch(), log, self._record(service.name))
            if self._await(service, record):
                return
            if port_is_free(state.port(service.name)):  # so it was not for the port that it ended
                break
        raise ServiceUnavailableError(
            f"{service.name} ended while starting; the end of {log}:\n{process.log_tail(log)}",
            service.name,
        )

    def _await(self, service: Service, record: ProcessRecord) -> bool:
        """Wait until it answers; False when it ended instead."""
        deadline = time.monotonic() + _START_S
        while process.is_alive(record):
            if service.ready():
                return True
            if time.monotonic() > deadline:
                log = self._log(service.name)
                raise ServiceUnavailableError(
                    f"{service.name} (pid {record.pid}) has not answered for {_START_S:.0f} s: "
                    f"`nightshift down` ends it; the end of {log}:\n{process.log_tail(log)}",
                    service.name,
                )
            time.sleep(0.05)
        return False

    def _ensure_program(self, name: str, urls: ServiceUrls) -> None:
        launch = self._program(name.partition("-")[0], urls)
        record = self._known(name)
        if record is not None and process.is_alive(record):
            if record.digest == launch.digest:
                return
            self._stop(name)  # it was started for other addresses
        process.spawn(launch, self._log(name), self._record(name))

    def _program(self, command: str, urls: ServiceUrls) -> Launch:
        # Explicit variables also win over a `.env` file of the current directory.
        addresses = {
            "NIGHTSHIFT_DATA_DIR": str(self.data_dir),
            "NIGHTSHIFT_DATABASE_URL": urls.database_url,
            "NIGHTSHIFT_REDIS_URL": urls.redis_url,
            "NIGHTSHIFT_MILVUS_URI": urls.milvus_uri,
            "NIGHTSHIFT_MILVUS_TOKEN": urls.milvus_token,
        }
        return Launch(
            argv=(sys.executable, "-P", "-m", "nightshift.cli.main", command),
            env={**os.environ, **addresses, "PYTHONUNBUFFERED": "1"},
        )

    def _stop(self, name: str, grace_s: float = 30.0) -> None:
        record = self._known(name)
        if record is None:
            return
        service = _SERVICE_TYPES.get(name)
        number, wait_s = (
            (service.stop_signal, service.stop_wait_s)
            if service
            else (signal.SIGTERM, grace_s + 5.0)
        )
        if not process.stop(record, number, wait_s):
            _log.warning("%s (pid %d) had to be killed after %.0f s", name, record.pid, wait_s)
        self._record(name).unlink(missing_ok=True)

    def _service_status(self, service: Service, state: StackState) -> PartStatus:
        address = f"{HOST}:{state.ports[service.name]}" if service.name in state.ports else ""
        part = self._part_status(service.name, address)
        if part.state == "running" and not service.ready():
            return self._part_status(service.name, address, alive="silent")
        return part

    def _part_status(
        self, name: str, address: str = "", alive: Literal["running", "silent"] = "running"
    ) -> PartStatus:
        record = self._known(name)
        log = self._log(name)
        if record is None:
            return PartStatus(name=name, state="stopped", address=address, log=log)
        if not process.is_alive(record):
            return PartStatus(name=name, state="died", address=address, log=log)
        uptime_s = max(0.0, time.time() - record.started_at)
        return PartStatus(
            name=name, state=alive, pid=record.pid, address=address, uptime_s=uptime_s, log=log
        )


_SERVICE_TYPES: dict[str, type[Postgres] | type[Redis] | type[MilvusLite]] = {
    "postgres": Postgres,
    "redis": Redis,
    "milvus": MilvusLite,
}


def _services(data_dir: Path, state: StackState) -> list[Service]:
    return [kind(data_dir, state) for kind in _SERVICE_TYPES.values()]
