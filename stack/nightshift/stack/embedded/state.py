"""State of a data directory: ports, passwords and the identity of the directory."""

import os
import random
import secrets
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nightshift.schema.errors import ConfigurationError

__all__ = [
    "HOST",
    "SERVICES",
    "DirectoryIdentity",
    "ServiceUrls",
    "StackState",
    "port_is_free",
    "write_private",
]

HOST = "127.0.0.1"

#: In the order of starting; stopped in reverse.
SERVICES = ("postgres", "redis", "milvus")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceUrls:
    """Addresses of the three services; the repr leaves out those that carry a password."""

    #: SQLAlchemy URL (psycopg2).
    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    milvus_uri: str
    #: Empty when the server needs none.
    milvus_token: str = field(repr=False, default="")


class DirectoryIdentity(BaseModel):
    """Path, device and inode of a data directory; they tell it from a copy of it."""

    model_config = ConfigDict(frozen=True)

    path: str
    device: int
    inode: int

    @classmethod
    def of(cls, data_dir: Path) -> Self:
        """The identity of the directory as it is now."""
        status = data_dir.stat()
        return cls(path=str(data_dir), device=status.st_dev, inode=status.st_ino)

    def is_same(self, other: Self) -> bool:
        """True if both are the same directory, renamed or not.

        A device may get another number when the machine boots, so an equal path counts as well.
        """
        return self.inode == other.inode and (
            self.device == other.device or self.path == other.path
        )


class StackState(BaseModel):
    """`stack.json`: created once for a data directory, changed only under its lock."""

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True)

    postgres_password: str = Field(default_factory=lambda: secrets.token_hex(24), repr=False)
    redis_password: str = Field(default_factory=lambda: secrets.token_hex(24), repr=False)
    milvus_token: str = Field(default_factory=lambda: secrets.token_hex(24), repr=False)
    ports: dict[str, int] = {}
    #: The directory that this state belongs to; None before the first start.
    identity: DirectoryIdentity | None = Field(
        default=None, validation_alias="home", serialization_alias="home"
    )
    #: The former path that addresses in the database still name; None if they are up to date.
    moved_from: str | None = None
    #: True while a restore fills the directory, and after that restore was interrupted.
    restoring: bool = False
    #: Written by earlier versions: parent of the Postgres cluster, which root kept outside.
    postgres_home: Path | None = None

    @classmethod
    def load(cls, data_dir: Path) -> Self | None:
        """Read the state of a data directory; None if no stack was ever started in it.

        Raises:
            ConfigurationError: When the file belongs to another user or is damaged.
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
        """The recorded port; chooses one if none is recorded."""
        if service not in self.ports:
            self.choose_port(service)
        return self.ports[service]

    def choose_port(self, service: str) -> None:
        """Choose a free port outside the ephemeral range.

        In that range, a client that polls an unused port may be given this very port as its own
        and connect to itself.
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


def port_is_free(port: int, wait_s: float = 0.0) -> bool:
    """True if a server can listen on this loopback port now, or within `wait_s` seconds."""
    deadline = time.monotonic() + wait_s
    while not _can_listen(port):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True


def write_private(path: Path, text: str, uid: int = -1) -> None:
    """Replace a file in one step by one that only its owner can read (`uid`; -1: this user)."""
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
        # As the servers do: connections left from before a restart do not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
