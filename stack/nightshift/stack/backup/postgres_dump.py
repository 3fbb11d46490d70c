"""The database of a backup, by pg_dump and pg_restore."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from sqlalchemy import make_url

from nightshift.schema.errors import NightshiftError
from nightshift.stack.backup.files import new_file
from nightshift.stack.backup.manifest import BackupFile
from nightshift.stack.embedded.postgres_service import installed_program
from nightshift.stack.embedded.service import minimal_environment

__all__ = ["dump_database", "load_database"]

_DUMP = "postgres.dump"


def dump_database(database_url: str, directory: Path) -> BackupFile:
    """Write a dump of the database into a backup.

    Raises:
        NightshiftError: When pg_dump fails.
    """
    with new_file(directory, _DUMP) as (stream, entries):
        _run("pg_dump", database_url, ("--format=custom",), stream)
    return entries[0]


def load_database(database_url: str, directory: Path) -> None:
    """Load the dump of a backup into an empty database.

    Raises:
        NightshiftError: When pg_restore fails.
    """
    options = ("--exit-on-error", "--no-owner", "--no-privileges", f"--jobs={os.cpu_count() or 1}")
    _run("pg_restore", database_url, (*options, str(directory / _DUMP)), subprocess.DEVNULL)


def _run(program: str, database_url: str, options: Sequence[str], output: IO[bytes] | int) -> None:
    url = make_url(database_url)
    address = (f"--host={url.host}", f"--port={url.port}", f"--username={url.username}")
    completed = subprocess.run(
        [
            installed_program(program),
            *(*address, "--no-password", f"--dbname={url.database}"),
            *options,
        ],
        # Every user could read a password on the command line.
        env={**minimal_environment(), "PGPASSWORD": str(url.password)},
        stdout=output,
        stderr=subprocess.PIPE,
        check=False,
    )
    if completed.returncode:
        raise NightshiftError(
            f"{program} failed: {completed.stderr.decode(errors='replace').strip()[-500:]}"
        )
