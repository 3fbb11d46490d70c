"""Shard files in the folder of a token set: names, listing and deletion."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import fsspec

from nightshift.schema.errors import NightshiftError, ServiceUnavailableError
from nightshift.stores.files.addresses import is_url
from nightshift.stores.files.files import to_nightshift_error

__all__ = ["ShardFile", "delete_shards", "list_shards", "shard_name"]

# A shard, or what `writing_shard` had begun when its process was killed.
_NAME = re.compile(r"run-(\d+)/(?:\d+-[0-9a-f]{32}\.tokens|\.\d+\.[0-9a-f]{12}\.part)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFile:
    """A file named as `shard_name` names them."""

    #: Below the folder of its set.
    name: str
    #: The run that wrote it.
    run_id: int
    n_bytes: int


def shard_name(run_id: int, job_id: int) -> str:
    """A name below a set's folder that no other attempt of the job has or had."""
    return f"run-{run_id}/{job_id}-{uuid4().hex}.tokens"


def list_shards(folder: str) -> list[ShardFile]:
    """Files of ours below a set's folder, whether a row names them or not; links are not followed.

    Args:
        folder: A path or an fsspec URL; it need not exist.

    Raises:
        ServiceUnavailableError: The store does not answer.
    """
    files = []
    for name, n_bytes in _remote(folder) if is_url(folder) else _local(Path(folder)):
        if match := _NAME.fullmatch(name):
            files.append(ShardFile(name=name, run_id=int(match[1]), n_bytes=n_bytes))
    return files


def delete_shards(folder: str, names: Sequence[str]) -> Iterator[str]:
    """Delete files of ours below a set's folder; other names, and what is gone, are passed over.

    Args:
        folder: A path or an fsspec URL.
        names: Below it.

    Yields:
        Each name once its file is gone.

    Raises:
        ServiceUnavailableError: A file cannot be deleted.
    """
    system, root = fsspec.core.url_to_fs(folder) if is_url(folder) else (None, folder)
    for name in names:
        if _NAME.fullmatch(name):
            try:
                with suppress(FileNotFoundError):
                    if system is not None:
                        system.rm_file(f"{root.rstrip('/')}/{name}")
                    else:
                        _unlink(Path(root, name))
            except Exception as error:  # every file system of fsspec brings errors of its own
                raise _away(error, f"{folder}/{name}") from error
        yield name


def _local(folder: Path) -> Iterator[tuple[str, int]]:
    try:
        runs = [run for run in os.scandir(folder) if run.is_dir(follow_symlinks=False)]
        for run in runs:
            for file in os.scandir(run):
                if file.is_file(follow_symlinks=False):
                    yield f"{run.name}/{file.name}", file.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return
    except OSError as error:
        raise _away(error, str(folder)) from error


def _remote(folder: str) -> Iterator[tuple[str, int]]:
    try:
        system, root = fsspec.core.url_to_fs(folder)
        system.invalidate_cache()
        sizes = system.find(root, detail=True)
    except FileNotFoundError:
        return
    except Exception as error:  # as above
        raise _away(error, folder) from error
    for path, info in sizes.items():
        yield path.removeprefix(f"{root.rstrip('/')}/"), int(info.get("size") or 0)


def _unlink(path: Path) -> None:
    try:
        # Held open: a folder that is exchanged for a link meanwhile leads nowhere else.
        folder = os.open(path.parent, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError:
        return
    try:
        os.unlink(path.name, dir_fd=folder)
    finally:
        os.close(folder)
    with suppress(OSError):
        # The last one of its run leaves no empty folder.
        path.parent.rmdir()


def _away(error: Exception, address: str) -> NightshiftError:
    if isinstance(error, PermissionError):
        return ServiceUnavailableError(
            f"{address} cannot be looked at or deleted: {error}; check the access rights", "files"
        )
    return to_nightshift_error(error, address, "file")
