"""What a backup holds: a list of files with sizes and checksums, written last, checked first."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import IO, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from nightshift.schema.errors import InputError, NotFoundError
from nightshift.stack.embedded.state import write_private

__all__ = ["BackupFile", "Manifest", "VectorFile", "checked_files", "copy_file", "new_file"]

_NAME = "manifest.json"
_CHUNK = 2**20


class BackupFile(BaseModel):
    """One file of a backup."""

    model_config = ConfigDict(frozen=True)

    #: Below the directory of the backup, with slashes.
    path: str
    n_bytes: int
    #: Hex.
    sha256: str

    @field_validator("path")
    @classmethod
    def _stays_below(cls, path: str) -> str:
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts or "\0" in path:
            raise ValueError("it leads out of the backup")
        return path


class VectorFile(BaseModel):
    """The vectors of one Milvus collection, in one file of the backup."""

    model_config = ConfigDict(frozen=True)

    path: str
    collection: str
    aliases: list[str]
    dim: int
    index_type: str
    metric: Literal["COSINE", "IP"]
    rows: int


class Manifest(BaseModel):
    """`manifest.json` of a backup."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    made_at: datetime
    #: Version of Nightshift that made it.
    nightshift: str
    #: Version of the Postgres that it was made from.
    postgres: str
    #: Migration that the database was at.
    revision: str
    #: Where the data directory was: addresses in the database name it.
    data_dir: str
    vectors: list[VectorFile]
    files: list[BackupFile]

    @model_validator(mode="after")
    def _lists_all_it_names(self) -> Self:
        if not {vectors.path for vectors in self.vectors} <= {file.path for file in self.files}:
            raise ValueError("it names vectors that it does not list")
        return self

    @property
    def n_bytes(self) -> int:
        """Size of all files."""
        return sum(file.n_bytes for file in self.files)

    def write(self, directory: Path) -> None:
        """Finish a backup: without this file a directory is none."""
        os.sync()  # what it lists must not be lost to a power failure after it was written
        write_private(directory / _NAME, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def read(cls, directory: Path) -> "Manifest":
        """The manifest of a backup.

        Raises:
            NotFoundError: There is none: the backup was interrupted, or it is not one.
            InputError: It is damaged, or of another format.
        """
        path = directory / _NAME
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise NotFoundError(
                f"{directory} holds no {_NAME}: it is no backup, or one that was interrupted; "
                "make another"
            ) from error
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error}", "backup_damaged") from error
        except ValidationError as error:
            raise InputError(
                f"{path} is damaged, or was written by a newer Nightshift "
                f"({error.error_count()} errors): use another backup, or upgrade",
                "backup_damaged",
            ) from error


def checked_files(directory: Path, manifest: Manifest) -> None:
    """Read every file of a backup and compare it with its checksum; links are not followed.

    Raises:
        InputError: Names the first file that is missing or differs.
    """
    for file in manifest.files:
        path = directory / file.path
        digest, n_bytes = hashlib.sha256(), 0
        try:
            if not S_ISREG(path.lstat().st_mode):
                raise OSError("it is no file")  # noqa: TRY301 - one message for all of them
            with path.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
                    n_bytes += len(chunk)
        except OSError as error:
            raise InputError(
                f"{path} of the backup cannot be read ({error}): use another backup",
                "backup_damaged",
            ) from error
        if (n_bytes, digest.hexdigest()) != (file.n_bytes, file.sha256):
            raise InputError(
                f"{path} of the backup is damaged: it has {n_bytes:,} bytes and another checksum "
                f"than the manifest says ({file.n_bytes:,} bytes); use another backup",
                "backup_damaged",
            )


@contextmanager
def new_file(directory: Path, path: str) -> Iterator[tuple[IO[bytes], list[BackupFile]]]:
    """Write one file of a backup; its entry is in the list when the block has ended."""
    target = directory / path
    for folder in reversed(PurePosixPath(path).parents):
        (directory / folder).mkdir(mode=0o700, exist_ok=True)
    entry: list[BackupFile] = []
    with open(target, "xb", opener=_private) as stream:
        yield stream, entry
    entry.append(_entry(directory, path))


def copy_file(source: Path, directory: Path, path: str) -> BackupFile | None:
    """Copy one file into a backup; None where it was deleted meanwhile."""
    try:
        with source.open("rb") as stream, new_file(directory, path) as (output, entry):
            while chunk := stream.read(_CHUNK):
                output.write(chunk)
    except FileNotFoundError:
        return None
    return entry[0]


def _entry(directory: Path, path: str) -> BackupFile:
    with (directory / path).open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return BackupFile(path=path, n_bytes=stream.tell(), sha256=digest)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
