"""Make a backup of a running stack."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import text

from nightshift.migrations import current_revision
from nightshift.schema.distribution import installed_version
from nightshift.schema.errors import ConflictError, ServiceUnavailableError
from nightshift.stack.backup.files import DATA_FOLDERS, copy_folder
from nightshift.stack.backup.manifest import BackupManifest
from nightshift.stack.backup.postgres_dump import dump_database
from nightshift.stack.backup.vectors import copy_vectors
from nightshift.stack.embedded.stack import Stack
from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.postgres.database import Database

__all__ = ["back_up"]

_SERVER_VERSION = text("SHOW server_version")


def back_up(stack: Stack, target: Path, report: Callable[[str], None]) -> BackupManifest:
    """Write a backup of a running stack; runs go on meanwhile.

    Postgres is copied first: a vector, blob or token file is written before a row names it, so
    everything that the dump names can be copied afterwards. Redis is left out, since the dispatcher
    can send all its messages again.

    Args:
        stack: The stack; its Postgres and Milvus run.
        target: A directory that is empty or does not exist.
        report: Called with a sentence for each step.

    Raises:
        ConflictError: When `target` is not empty, or lies in the data directory.
        ServiceUnavailableError: When Postgres or Milvus does not run, or the disk is full.
    """
    target = target.absolute()
    _check_target(stack, target)
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        target.chmod(0o700)
        return _write_backup(stack, target, report)
    except OSError as error:
        raise ServiceUnavailableError(
            f"the backup in {target} cannot be written ({error}): make room there, delete what it "
            "holds, and back up again",
            "files",
        ) from error


def _write_backup(stack: Stack, target: Path, report: Callable[[str], None]) -> BackupManifest:
    urls = stack.urls()
    with Database(urls.database_url) as database, database.begin() as connection:
        revision = current_revision(connection) or ""
        postgres = str(connection.execute(_SERVER_VERSION).scalar_one())
    report("copying the database")
    files = [dump_database(urls.database_url, target)]
    vector_files = []
    with VectorStore(urls.milvus_uri, urls.milvus_token) as store:
        for vector_file, entry in copy_vectors(store, target, report):
            vector_files.append(vector_file)
            files.append(entry)
    for name in DATA_FOLDERS:
        copied = copy_folder(stack.data_dir, name, target)
        files += copied
        if copied:
            report(f"copied {len(copied):,} files of {name}")
    manifest = BackupManifest(
        made_at=datetime.now(UTC),
        nightshift=installed_version(),
        postgres=postgres,
        revision=revision,
        data_dir=str(stack.data_dir),
        vectors=vector_files,
        files=files,
    )
    manifest.write(target)
    return manifest


def _check_target(stack: Stack, target: Path) -> None:
    for name in ("postgres", "milvus"):
        if not stack.is_running(name):
            raise ServiceUnavailableError(
                f"{name} of the stack in {stack.data_dir} does not run, and a backup reads its "
                "data: run `nightshift up --workers 0 --no-dispatcher`, then back up",
                name,
            )
    if target.resolve().is_relative_to(stack.data_dir):
        raise ConflictError(f"{target} lies in the data directory: back up to another place")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConflictError(
            f"{target} is not an empty directory: name another one, or delete what it holds"
        )
