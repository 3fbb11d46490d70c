"""A data directory: private to its owner, and distinct from its copies."""

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nightshift.schema.errors import ConfigurationError, ConflictError
from nightshift.stack.embedded.state import DirectoryIdentity, StackState

__all__ = ["lock_directory", "make_private", "update_identity"]

#: Folders that only the owner may read. The folder of Postgres may belong to another system user.
_FOLDERS = ("run", "logs", "redis", "milvus", "milvus-damaged", "blobs", "tokens", "demo")
_FILES = ("lock", "supervisor.lock", "stack.json", "redis.conf")
#: Names of ours; an interrupted step leaves names such as `postgres.new`.
_OWN_NAMES = frozenset({*_FOLDERS, *_FILES, "postgres"})


def make_private(data_dir: Path) -> None:
    """Create a data directory, or close one to everybody but its owner.

    A directory that also holds files of another program keeps its mode; then only our own folders
    and files are closed.

    Raises:
        ConfigurationError: When other users may write to it: they could replace our files.
    """
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if all(path.name.partition(".new")[0] in _OWN_NAMES for path in data_dir.iterdir()):
        data_dir.chmod(0o700)
    elif (mode := data_dir.stat().st_mode) & 0o022:
        raise ConfigurationError(
            f"{data_dir} holds other files, and other users may write to it (mode "
            f"{mode & 0o7777:o}): choose a directory of your own with --data-dir"
        )
    for name in ("run", "logs"):
        (data_dir / name).mkdir(exist_ok=True)
    for name in _FOLDERS:
        if (data_dir / name).is_dir():
            (data_dir / name).chmod(0o700)
    for name in _FILES:
        if (data_dir / name).is_file():
            (data_dir / name).chmod(0o600)


@contextmanager
def lock_directory(data_dir: Path, timeout_s: float = 300.0) -> Iterator[None]:
    """Hold the data directory's lock; the kernel frees it if this process dies.

    Raises:
        ConflictError: When another `up` or `down` still holds it after `timeout_s` seconds.
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


def update_identity(data_dir: Path, state: StackState) -> bool:
    """Change the state of a directory that was moved or copied, so that it fits the directory.

    A copy gets other ports and secrets than the original, so that clients of one never reach the
    other. The caller saves the state.

    Returns:
        True if the directory was renamed: programs that run in it know its old name.

    Raises:
        ConflictError: When it is a copy of a directory whose services were running.
    """
    current = DirectoryIdentity.of(data_dir)
    previous, state.identity = state.identity or _earlier_identity(state, current), current
    if previous is None or previous == current:
        return False
    if previous.path != current.path:
        state.moved_from = state.moved_from or previous.path
    if previous.is_same(current):
        return previous.path != current.path
    records = list((data_dir / "run").glob("*.json"))
    if any(record.stem == "postgres" for record in records):
        raise ConflictError(
            f"{data_dir} is a copy of {previous.path}, made while services ran there: its data may "
            "be torn. Copy it again after `nightshift down`, or use `nightshift backup` and "
            "`nightshift restore`; if nothing ran while it was copied (it was moved to another "
            f"disk after a crash), delete {data_dir / 'run' / 'postgres.json'} and try again"
        )
    for record in records:
        record.unlink()
    state.ports = {}
    state.redis_password, state.milvus_token = secrets.token_hex(24), secrets.token_hex(24)
    return False


def _earlier_identity(state: StackState, current: DirectoryIdentity) -> DirectoryIdentity | None:
    """The place of a directory that an earlier version started, as far as its state says it."""
    cluster_parent = state.postgres_home
    if (
        cluster_parent is None
        or cluster_parent == Path(current.path)
        or cluster_parent.name.startswith("nightshift-")
    ):
        return None
    return DirectoryIdentity(path=os.fspath(cluster_parent), device=0, inode=0)
