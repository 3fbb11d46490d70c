"""A fault that fills the disk of the token store."""

import errno
import os
import shutil
from pathlib import Path
from time import monotonic, sleep

from sqlalchemy import text

from nightshift.schema.errors import ConflictError
from nightshift.schema.states import Stage
from nightshift.stack.faults.target import FaultTarget
from nightshift.stores.files.addresses import is_url
from nightshift.stores.ledger import runs
from nightshift.stores.ledger.run_types import TokenRun
from nightshift.stores.tokens import token_sets

__all__ = ["fill_disk"]

#: A larger disk is not filled: other programs may use it.
_MAX_DISK_BYTES = 2**30
_CHUNK = bytes(2**20)

#: Selects the jobs that went back to the queue because they could not write.
_REFUSED_JOBS = text(
    """
    SELECT id, token FROM job WHERE run_id = :run AND state = 'queued' AND error LIKE :pattern
"""
)
#: True while a run has jobs that are not done.
_HAS_OPEN_JOBS = text(
    """
    SELECT EXISTS (SELECT FROM job WHERE run_id = :run AND state IN ('queued', 'running'))
"""
)


def fill_disk(target: FaultTarget) -> str | None:
    """Fill the disk of the token store until a job cannot write, then free the space again.

    Raises:
        ConflictError: When the disk is too large to be made for this purpose.
    """
    folder = _token_folder(target)
    if folder is None or not _has_open_jobs(target):
        return None
    size = shutil.disk_usage(folder).total
    if size > _MAX_DISK_BYTES:
        raise ConflictError(
            f"the disk of {folder} has {size:,} bytes, and a drill fills none larger than "
            f"{_MAX_DISK_BYTES:,}: build the tokens into a small file system (--store), such as a "
            "tmpfs, and drill that run"
        )
    before = _refused_jobs(target)
    start = monotonic()
    filler = folder / f".{os.getpid()}.filler"
    try:
        n_bytes = _fill(filler)
        # A job that has written already still ends well, and the run may have no other job.
        while not (refused := _refused_jobs(target) - before) and _has_open_jobs(target):
            if monotonic() - start > 2 * target.lease_s + 30:
                break
            sleep(0.05)
    finally:
        filler.unlink(missing_ok=True)
    if not refused:
        return None
    return f"filled the disk of {folder} with {n_bytes:,} bytes until a job could not write"


def _token_folder(target: FaultTarget) -> Path | None:
    """The folder that the run writes visual tokens to; None if it writes none to a disk."""
    with target.database.begin() as connection:
        run = runs.get_run(connection, target.run_id)
        if (
            not isinstance(run, TokenRun)
            or run.token_set_id is None
            or run.stage is not Stage.TOKENS
        ):
            return None
        address = token_sets.get_set(connection, run.token_set_id).address
    if is_url(address):
        return None
    folder = Path(address)
    while not folder.exists():
        folder = folder.parent
    return folder


def _refused_jobs(target: FaultTarget) -> set[tuple[int, int]]:
    """Jobs that could not write, each with the fencing token of its last claim."""
    with target.database.begin() as connection:
        rows = connection.execute(
            _REFUSED_JOBS,
            {"run": target.run_id, "pattern": f"%[Errno {errno.ENOSPC}]%"},
        )
        return {(row.id, row.token) for row in rows}


def _has_open_jobs(target: FaultTarget) -> bool:
    with target.database.begin() as connection:
        return bool(connection.execute(_HAS_OPEN_JOBS, {"run": target.run_id}).scalar_one())


def _fill(filler: Path) -> int:
    """Write until the disk is full; returns the number of bytes."""
    n_bytes = 0
    with filler.open("wb", buffering=0) as stream:
        chunk = _CHUNK
        while chunk:
            try:
                n_bytes += stream.write(chunk)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                chunk = chunk[: len(chunk) // 2]
    return n_bytes
