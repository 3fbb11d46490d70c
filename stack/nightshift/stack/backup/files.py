"""The files of a backup: written and copied with their checksums, verified before a restore."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import IO

from nightshift.schema.errors import InputError
from nightshift.stack.backup.manifest import BackupFile, BackupManifest

__all__ = ["DATA_FOLDERS", "copy_file", "copy_folder", "new_file", "verify_files"]

#: Folders of the data directory whose files never change once they are written.
DATA_FOLDERS = ("blobs", "tokens", "demo")

_CHUNK_BYTES = 2**20


@contextmanager
def new_file(directory: Path, path: str) -> Iterator[tuple[IO[bytes], list[BackupFile]]]:
    """Write one file of a backup.

    Args:
        directory: The directory of the backup.
        path: The file's path below it.

    Yields:
        The stream to write to, and a list that holds the file's entry after the block.
    """
    for folder in reversed(PurePosixPath(path).parents):
        (directory / folder).mkdir(mode=0o700, exist_ok=True)
    entries: list[BackupFile] = []
    with open(directory / path, "xb", opener=_open_private) as stream:
        yield stream, entries
    entries.append(_entry(directory, path))


def copy_file(source: Path, directory: Path, path: str) -> BackupFile | None:
    """Copy one file into a backup; None if it was deleted meanwhile."""
    try:
        with source.open("rb") as stream, new_file(directory, path) as (output, entries):
            while chunk := stream.read(_CHUNK_BYTES):
                output.write(chunk)
    except FileNotFoundError:
        return None
    return entries[0]


def copy_folder(data_dir: Path, name: str, directory: Path) -> list[BackupFile]:
    """Copy a folder of the data directory into a backup, without links and unfinished files."""
    entries = (
        copy_file(path, directory, str(path.relative_to(data_dir)))
        for path in sorted((data_dir / name).rglob("*"))
        if path.is_file() and not path.is_symlink() and not path.name.endswith(".part")
    )
    return [entry for entry in entries if entry is not None]


def verify_files(directory: Path, manifest: BackupManifest) -> None:
    """Read every file of a backup and compare it with its checksum; links are not followed.

    Raises:
        InputError: When a file is missing or differs; names the first one.
    """
    for file in manifest.files:
        path = directory / file.path
        digest, n_bytes = hashlib.sha256(), 0
        try:
            if not S_ISREG(path.lstat().st_mode):
                raise OSError("it is not a file")  # noqa: TRY301 - one message for all of them
            with path.open("rb") as stream:
                while chunk := stream.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    n_bytes += len(chunk)
        except OSError as error:
            raise InputError(
                f"{path} of the backup cannot be read ({error}): use another backup",
                "backup_damaged",
            ) from error
        if (n_bytes, digest.hexdigest()) != (file.n_bytes, file.sha256):
            raise InputError(
                f"{path} of the backup is damaged: its size ({n_bytes:,} bytes) or its checksum is "
                f"not the one in the manifest ({file.n_bytes:,} bytes); use another backup",
                "backup_damaged",
            )


def _entry(directory: Path, path: str) -> BackupFile:
    with (directory / path).open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return BackupFile(path=path, n_bytes=stream.tell(), sha256=digest)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
