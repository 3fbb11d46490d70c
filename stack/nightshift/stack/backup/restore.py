"""Make a data directory from a backup."""

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import text

from nightshift.migrations import knows_revision
from nightshift.schema.errors import InputError
from nightshift.stack.backup.files import DATA_FOLDERS, copy_file, verify_files
from nightshift.stack.backup.manifest import BackupManifest
from nightshift.stack.backup.postgres_dump import load_database
from nightshift.stack.backup.vectors import load_vectors
from nightshift.stack.embedded.relocation import rewrite_addresses
from nightshift.stack.embedded.stack import Stack
from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.postgres.database import Database

__all__ = ["restore"]

#: Collects statistics for the query planner.
_ANALYZE = text("ANALYZE")


def restore(source: Path, data_dir: Path, report: Callable[[str], None]) -> BackupManifest:
    """Make a data directory from a backup; its stack is not started.

    Args:
        source: The directory of the backup.
        data_dir: A directory that is empty or does not exist.
        report: Called with a sentence for each step.

    Raises:
        NotFoundError: When `source` holds no finished backup.
        InputError: When the backup is damaged, or newer than this program.
        ConflictError: When `data_dir` is not empty.
    """
    source = source.absolute()
    manifest = BackupManifest.read(source)
    if not knows_revision(manifest.revision):
        raise InputError(
            f"{source} was made by Nightshift {manifest.nightshift}, whose database this program "
            "does not know: upgrade, then restore",
            "backup_newer",
        )
    report(f"checking {len(manifest.files):,} files, {manifest.n_bytes:,} bytes")
    verify_files(source, manifest)
    stack = Stack(data_dir)
    with stack.restoring() as urls:
        for file in manifest.files:
            if file.path.partition("/")[0] in DATA_FOLDERS:
                copy_file(source / file.path, stack.data_dir, file.path)
        report("restoring the database")
        load_database(urls.database_url, source)
        with Database(urls.database_url) as database, database.begin() as connection:
            rewrite_addresses(connection, Path(manifest.data_dir), stack.data_dir)
            connection.execute(_ANALYZE)
        with VectorStore(urls.milvus_uri, urls.milvus_token) as store:
            for vectors in manifest.vectors:
                report(f"restoring {vectors.rows:,} vectors of {vectors.collection}")
                load_vectors(store, source, vectors)
    return manifest
