"""What a data directory remembers: ports, passwords, where it lies; and its lock."""

import fcntl
import os
import random
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nightshift.schema.errors import ConfigurationError, ConflictError

__all__ = [
    "HOST",
    "SERVICES",
    "Home",
    "ServiceUrls",
    "StackState",
    "exclusive",
    "port_is_free",
    "write_private",
]

HOST = "127.0.0.1"

#: In the order of starting; stopped in reverse.
SERVICES = ("postgres", "redis", "milvus")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceUrls:
    """Where the three services are; what carries a password is left out of the repr."""

    #: SQLAlchemy URL (psycopg2).
    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    milvus_uri: str
    #: Empty when the server asks for none.
    milvus_token: str = field(repr=False, default="")


class Home(BaseModel):
    """Tells a data directory from a copy of it."""

    model_config = ConfigDict(frozen=True)

    path: str
    device: int
    inode: int

    @classmethod
    def of(cls, data_dir: Path) -> Self:
        """The directory as it is now."""
        status = data_dir.stat()
        return cls(path=str(data_dir), device=status.st_dev, inode=status.st_ino)

    def is_same(self, other: Self) -> bool:
        """Whether both are one directory, renamed or not.

        A device may get another number when the machine starts, so an equal path will do as well.
        """
        return self.inode == other.inode and (
            self.device == other.device or self.path == other.path
        )


class StackState(BaseModel):
    """`stack.json`: made once for a data directory, changed only under its lock."""

    postgres_password: str = Field(default_factory=lambda: secrets.token_hex(24), repr=False)
    redis_password: str = Field(default_factory=lambda: secrets.token_hex(24), repr=False)
    milvus_token: str = Field(default_factory=lambda: secrets.token_hex(24), repr=False)
    ports: dict[str, int] = {}
    #: The directory that this state belongs to; None before the first start.
    home: Home | None = None
    #: Where the directory was when addresses in the database were last right, if not here.
    moved_from: str | None = None
    #: What a restore is filling, or was when it was interrupted.
    restoring: bool = False
    #: Earlier versions: parent of the Postgres cluster, which root kept outside.
    postgres_home: Path | None = None

    @classmethod
    def load(cls, data_dir: Path) -> Self | None:
        """The state of a data directory; None when no stack was ever started in it.

        Raises:
            ConfigurationError: When the file is not ours or damaged.
        """
        path = data_dir / "stack.json"
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise ConfigurationError(
                f"{path} belongs to another user: choose a data directory with --data-dir"
            ) from error
        except ValidationError as error:
            raise ConfigurationError(
                f"{path} is damaged ({error.error_count()} errors): restore it from a backup, or "
                "choose another data directory with --data-dir"
            ) from error

    def save(self, data_dir: Path) -> None:
        """Replace the file in one step, readable by its owner only."""
        write_private(data_dir / "stack.json", self.model_dump_json(indent=2) + "\n")

    def port(self, service: str) -> int:
        """The remembered port, or a new one where none is remembered."""
        if service not in self.ports:
            self.change_port(service)
        return self.ports[service]

    def change_port(self, service: str) -> None:
        """Choose a free port.

        Not from the ephemeral range: there, a client polling a port where nobody listens may
        be given that very port as its own and connect to itself.
        """
        taken = set(self.ports.values())
        while (port := random.randrange(20_000, 32_000)) in taken or not port_is_free(port):
            pass
        self.ports[service] = port

    def urls(self) -> ServiceUrls:
        """Addresses of the three services."""
        address = {name: f"{HOST}:{self.ports.get(name, 0)}" for name in SERVICES}
        return ServiceUrls(
            database_url=(
                f"postgresql+psycopg2://nightshift:{self.postgres_password}@{address['postgres']}"
                "/nightshift"
            ),
            redis_url=f"redis://:{self.redis_password}@{address['redis']}/0",
            milvus_uri=f"http://{address['milvus']}",
            milvus_token=self.milvus_token,
        )


@contextmanager
def exclusive(data_dir: Path, timeout_s: float = 300.0) -> Iterator[None]:
    """Hold the data directory's lock, which the kernel frees if this process dies.

    Raises:
        ConflictError: When another `up` or `down` held it all the while.
    """
    # Readable by its owner only: whoever may open it could hold it.
    descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "r+") as lock:
        os.fchmod(descriptor, 0o600)
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ConflictError(
                        f"another `nightshift up` or `down` has been busy in {data_dir} for "
                        f"{timeout_s:.0f} s: wait for it or end it"
                    ) from None
                time.sleep(0.05)
        yield


def port_is_free(port: int, wait_s: float = 0.0) -> bool:
    """Whether a server could listen on this loopback port now, or within `wait_s` seconds."""
    deadline = time.monotonic() + wait_s
    while not _can_listen(port):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True


def write_private(path: Path, text: str, uid: int = -1) -> None:
    """Write a file that only its owner (`uid`; -1 keeps the own one) can read, in one step."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.chown(temporary, uid, -1)
    temporary.replace(path)


def _can_listen(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do: connections that linger after a restart do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
