"""The manifest of a backup: its files with sizes and checksums, written last, read first."""

import os
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from nightshift.schema.errors import InputError, NotFoundError
from nightshift.stack.embedded.state import write_private

__all__ = ["BackupFile", "BackupManifest", "VectorFile"]

_NAME = "manifest.json"


class BackupFile(BaseModel):
    """One file of a backup, with its size and checksum."""

    model_config = ConfigDict(frozen=True)

    #: Path below the directory of the backup, with slashes.
    path: str
    n_bytes: int
    #: Hexadecimal.
    sha256: str

    @field_validator("path")
    @classmethod
    def _stays_below(cls, path: str) -> str:
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts or "\0" in path:
            raise ValueError("the path leads out of the backup")
        return path


class VectorFile(BaseModel):
    """The file of one Milvus collection: its path, and how to create the collection."""

    model_config = ConfigDict(frozen=True)

    path: str
    collection: str
    aliases: list[str]
    dim: int
    index_type: str
    metric: Literal["COSINE", "IP"]
    rows: int


class BackupManifest(BaseModel):
    """`manifest.json`: the content of a backup."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    made_at: datetime
    #: Version of Nightshift that made it.
    nightshift: str
    #: Version of the Postgres server.
    postgres: str
    #: Migration of the database.
    revision: str
    #: Path of the data directory; addresses in the database name it.
    data_dir: str
    vectors: list[VectorFile]
    files: list[BackupFile]

    @model_validator(mode="after")
    def _lists_every_vector_file(self) -> Self:
        if not {vectors.path for vectors in self.vectors} <= {file.path for file in self.files}:
            raise ValueError("it describes vectors whose file it does not list")
        return self

    @property
    def n_bytes(self) -> int:
        """Size of all files."""
        return sum(file.n_bytes for file in self.files)

    def write(self, directory: Path) -> None:
        """Finish a backup: a directory without this file is not a backup."""
        os.sync()  # a power failure must not lose a file that the manifest lists
        write_private(directory / _NAME, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read the manifest of a backup.

        Raises:
            NotFoundError: When there is none: the backup was interrupted, or is not a backup.
            InputError: When it is damaged, or of another format.
        """
        path = directory / _NAME
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise NotFoundError(
                f"{directory} holds no {_NAME}: it is not a backup, or its backup was interrupted; "
                "make another one"
            ) from error
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error}", "backup_damaged") from error
        except ValidationError as error:
            raise InputError(
                f"{path} is damaged, or was written by a newer Nightshift "
                f"({error.error_count()} errors): use another backup, or upgrade",
                "backup_damaged",
            ) from error
