"""The embedded stack of a data directory: start it, stop it, and tell its state."""

import os
import signal
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from nightshift.schema.errors import ConfigurationError, ConflictError, NotFoundError
from nightshift.stack.embedded import process
from nightshift.stack.embedded.commands import StackCommands
from nightshift.stack.embedded.data_directory import (
    lock_directory,
    make_private,
    update_identity,
)
from nightshift.stack.embedded.milvus_service import MilvusService
from nightshift.stack.embedded.parts import Parts
from nightshift.stack.embedded.postgres_service import PostgresService
from nightshift.stack.embedded.process import Launch, StopRule
from nightshift.stack.embedded.redis_service import RedisService
from nightshift.stack.embedded.relocation import rewrite_addresses
from nightshift.stack.embedded.service import Service
from nightshift.stack.embedded.start_service import ensure_service
from nightshift.stack.embedded.state import (
    HOST,
    SERVICES,
    DirectoryIdentity,
    ServiceUrls,
    StackState,
)
from nightshift.stack.embedded.status import PartStatus, StackStatus
from nightshift.stores.postgres.database import Database

__all__ = ["Stack"]

_SERVICE_TYPES = (PostgresService, RedisService, MilvusService)


class Stack:
    """The services, the dispatcher and the workers of a data directory.

    Args:
        data_dir: Created by `up` when it is not there.
        commands: The command lines of the dispatcher and the workers. A stack without them starts
            services only.
    """

    def __init__(self, data_dir: Path, commands: StackCommands | None = None) -> None:
        self.data_dir = data_dir.expanduser().resolve()
        self._commands = commands or StackCommands()
        rules: dict[str, StopRule] = {kind.name: kind.stop_rule for kind in _SERVICE_TYPES}
        self._parts = Parts(self.data_dir, rules)

    def up(
        self,
        workers: int = 1,
        *,
        dispatcher: bool = True,
        services: Collection[str] = SERVICES,
    ) -> StackStatus:
        """Start what does not run, and bring the database up to date.

        Args:
            workers: The least number of workers that run afterwards; those that died are started
                again. 0 leaves the workers as they are.
            dispatcher: True starts the dispatcher.
            services: The services that run afterwards.

        Raises:
            ServiceUnavailableError: When a service does not come up; carries the end of its log.
            ConflictError: When another `up` or `down` holds the directory, or it is a copy that was
                made while services ran.
            ConfigurationError: When the stack has no command for a program that is to be started.
        """
        self._commands.require(dispatcher=dispatcher, worker=workers > 0)
        make_private(self.data_dir)
        with lock_directory(self.data_dir):
            state = StackState.load(self.data_dir) or StackState()
            if state.restoring:
                raise ConflictError(
                    f"a restore into {self.data_dir} was interrupted: delete the directory and "
                    "restore again"
                )
            if update_identity(self.data_dir, state) or self._parts.has_earlier_version():
                self._parts.stop_all()
            state.save(self.data_dir)
            for service in self._services(state):
                if service.name in services:
                    self._ensure_service(service, state)
            if "postgres" in services:
                from nightshift.migrations import upgrade  # noqa: PLC0415 - a worker needs none

                upgrade(state.urls().database_url)
                self._correct_addresses(state)
            if dispatcher:
                self._ensure_program("dispatcher", state)
            if workers:
                for number in range(1, max(workers, *self._parts.worker_numbers(), 0) + 1):
                    self._ensure_program(f"worker-{number}", state)
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
        with lock_directory(self.data_dir):
            return self._parts.stop_all(grace_s)

    def start(self, name: str) -> bool:
        """Start a part that died, and programs again whose addresses changed by it.

        Returns:
            False if the part runs or was stopped; then nothing is started.

        Raises:
            ServiceUnavailableError: When a service does not come up; carries the end of its log.
            ConflictError: When another `up` or `down` holds the directory.
        """
        with lock_directory(self.data_dir):
            state = StackState.load(self.data_dir)
            if state is None or self.recorded().get(name, True):
                return False
            for service in self._services(state):
                if service.name == name:
                    self._ensure_service(service, state)
            programs = [part for part in self.recorded() if part not in SERVICES]
            for program in programs:
                if program == name or self.is_running(program):
                    self._ensure_program(program, state)
            return True

    def restart(self, name: str) -> None:
        """Stop a part cleanly and start it again.

        Raises:
            NotFoundError: When there is no part of that name.
        """
        self.status().part(name)
        with lock_directory(self.data_dir):
            self._parts.stop(name)
        number = name.removeprefix("worker-")
        self.up(
            int(number) if number.isdigit() else 0,
            dispatcher=name == "dispatcher",
            services={name} & set(SERVICES),
        )

    def kill(self, name: str) -> None:
        """End a part with SIGKILL, as a crash would; `up` starts it again.

        Raises:
            NotFoundError: When it does not run.
        """
        record = self._parts.living(name)
        if record is None:
            raise NotFoundError(f"{name} of {self.data_dir} is not running: see nightshift status")
        process.stop(record, StopRule(stop_signal=signal.SIGKILL, wait_s=10.0))

    def prepare(self) -> None:
        """Create the data directory and its folders."""
        make_private(self.data_dir)

    @contextmanager
    def restoring(self) -> Iterator[ServiceUrls]:
        """Run Postgres and Milvus of a new data directory while the block fills it.

        Until the block has ended without an error, `up` refuses the directory.

        Raises:
            ConflictError: When the directory is not empty.
            ServiceUnavailableError: As `up`.
        """
        if self.data_dir.exists() and any(self.data_dir.iterdir()):
            raise ConflictError(
                f"{self.data_dir} is not empty: name another directory with --data-dir, or stop "
                "the stack there (`nightshift down`) and move it away"
            )
        make_private(self.data_dir)
        with lock_directory(self.data_dir):
            state = StackState(restoring=True)
            update_identity(self.data_dir, state)
            state.save(self.data_dir)
            try:
                for service in self._services(state):
                    if service.name != "redis":
                        self._ensure_service(service, state)
                yield state.urls()
            finally:
                self._parts.stop_all()
            state.restoring = False
            state.save(self.data_dir)

    def urls(self) -> ServiceUrls:
        """Addresses of the services, whether they run or not.

        Raises:
            ConfigurationError: When no stack was ever started here, or only in the directory that
                this one is a copy of.
        """
        state = StackState.load(self.data_dir)
        if state is None:
            raise ConfigurationError(f"there is no stack in {self.data_dir}: run `nightshift up`")
        identity = state.identity
        if identity is not None and not identity.is_same(DirectoryIdentity.of(self.data_dir)):
            raise ConfigurationError(
                f"{self.data_dir} is a copy of {identity.path}, and its own stack was not started "
                "yet: run `nightshift up`"
            )
        return state.urls()

    def status(self) -> StackStatus:
        """The state of every part at this moment; starts and changes nothing."""
        state = StackState.load(self.data_dir) or StackState()
        parts = [self._service_status(service, state) for service in self._services(state)]
        workers = [f"worker-{number}" for number in self._parts.worker_numbers()]
        parts += [self._parts.status(name) for name in ("dispatcher", *workers)]
        return StackStatus(data_dir=self.data_dir, parts=tuple(parts))

    def recorded(self) -> dict[str, bool]:
        """The parts that were started and not stopped → whether their processes live."""
        return self._parts.recorded()

    def is_running(self, name: str) -> bool:
        """True if the part's process lives."""
        return self._parts.is_running(name)

    def _services(self, state: StackState) -> list[Service]:
        return [kind(self.data_dir, state) for kind in _SERVICE_TYPES]

    def _ensure_service(self, service: Service, state: StackState) -> None:
        ensure_service(service, state, self._parts, self.data_dir)

    def _ensure_program(self, name: str, state: StackState) -> None:
        urls = state.urls()
        # Explicit variables also win over a `.env` file of the current directory.
        addresses = {
            "NIGHTSHIFT_DATA_DIR": str(self.data_dir),
            "NIGHTSHIFT_DATABASE_URL": urls.database_url,
            "NIGHTSHIFT_REDIS_URL": urls.redis_url,
            "NIGHTSHIFT_MILVUS_URI": urls.milvus_uri,
            "NIGHTSHIFT_MILVUS_TOKEN": urls.milvus_token,
        }
        env = {**os.environ, **addresses, "PYTHONUNBUFFERED": "1"}
        self._parts.ensure_program(name, Launch(argv=self._commands.argv(name), env=env))

    def _service_status(self, service: Service, state: StackState) -> PartStatus:
        address = f"{HOST}:{state.ports[service.name]}" if service.name in state.ports else ""
        part = self._parts.status(service.name, address)
        if part.state == "running" and not service.ready():
            return self._parts.status(service.name, address, alive="silent")
        return part

    def _correct_addresses(self, state: StackState) -> None:
        """Rewrite the addresses of blobs and tokens in the database after a move."""
        if state.moved_from is not None:
            with Database(state.urls().database_url) as database, database.begin() as connection:
                rewrite_addresses(connection, Path(state.moved_from), self.data_dir)
            state.moved_from = None
            state.save(self.data_dir)
