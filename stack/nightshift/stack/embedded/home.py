"""A data directory as a place: private to its owner, and distinguished from its copies."""

import os
import secrets
from pathlib import Path

from nightshift.schema.errors import ConfigurationError, ConflictError
from nightshift.stack.embedded.state import Home, StackState

__all__ = ["adopt", "make_private"]

#: Folders that hold what nobody else may see. Postgres' own one may belong to another user.
_FOLDERS = ("run", "logs", "redis", "milvus", "milvus-damaged", "blobs", "tokens", "demo")
_FILES = ("lock", "supervisor.lock", "stack.json", "redis.conf")
#: Names of ours; `postgres.new` and so on are left where something was interrupted.
_OURS = frozenset({*_FOLDERS, *_FILES, "postgres"})


def make_private(data_dir: Path) -> None:
    """Create a data directory, or close one to everybody but its owner.

    A directory that also holds files of somebody else's program keeps its mode: then only our own
    folders and files are closed.

    Raises:
        ConfigurationError: When others may write to it, and could put files of theirs for ours.
    """
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if all(path.name.partition(".new")[0] in _OURS for path in data_dir.iterdir()):
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


def adopt(data_dir: Path, state: StackState) -> bool:
    """Make a state this directory's own, where the directory was moved or is a copy.

    A copy gets other ports and secrets than the original, so that nobody takes one for the other.
    The caller saves the state.

    Returns:
        Whether the directory was renamed: what runs in it knows it by its old name.

    Raises:
        ConflictError: When it is a copy of a directory whose services were running.
    """
    here = Home.of(data_dir)
    was, state.home = state.home or _earlier_home(state, here), here
    if was is None or was == here:
        return False
    if was.path != here.path:
        state.moved_from = state.moved_from or was.path
    if was.is_same(here):
        return was.path != here.path
    records = list((data_dir / "run").glob("*.json"))
    if any(record.stem == "postgres" for record in records):
        raise ConflictError(
            f"{data_dir} is a copy of {was.path}, made while services ran there: its data may be "
            "torn. Copy it again after `nightshift down`, or use `nightshift backup` and "
            "`nightshift restore`; if nothing ran while it was copied (it was moved to another "
            f"disk after a crash), delete {data_dir / 'run' / 'postgres.json'} and try again"
        )
    for record in records:
        record.unlink()
    state.ports = {}
    state.redis_password, state.milvus_token = secrets.token_hex(24), secrets.token_hex(24)
    return False


def _earlier_home(state: StackState, here: Home) -> Home | None:
    """Where an earlier version had a directory, as far as it said so."""
    home = state.postgres_home
    if home is None or home == Path(here.path) or home.name.startswith("nightshift-"):
        return None
    return Home(path=os.fspath(home), device=0, inode=0)
