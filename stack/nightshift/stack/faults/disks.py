"""A disk that is full."""

import errno
import os
import shutil
from pathlib import Path
from time import monotonic, sleep

from sqlalchemy import text

from nightshift.schema.errors import ConflictError
from nightshift.schema.states import Stage
from nightshift.stack.faults.site import Site
from nightshift.stores.files.addresses import is_url
from nightshift.stores.ledger import runs
from nightshift.stores.ledger.run_types import TokenRun
from nightshift.stores.tokens import token_sets

__all__ = ["fill_disk"]

#: A larger disk is not filled: others may live on it.
_LARGEST_BYTES = 2**30
_CHUNK = bytes(2**20)


def fill_disk(site: Site) -> str | None:
    """Fill the disk of the token store until a job could not write, then make room again.

    Raises:
        ConflictError: The disk is too large to be one that was made for this.
    """
    folder = _store(site)
    if folder is None or not _has_open_jobs(site):
        return None
    size = shutil.disk_usage(folder).total
    if size > _LARGEST_BYTES:
        raise ConflictError(
            f"the disk of {folder} has {size:,} bytes, and a drill fills none of more than "
            f"{_LARGEST_BYTES:,}: build the tokens into a small file system (--store), such as a "
            "tmpfs, and drill that run"
        )
    before = _refused(site)
    start = monotonic()
    filler = folder / f".{os.getpid()}.filler"
    try:
        n_bytes = _fill(filler)
        # A job that had written already may end all the same; the run may even have no other.
        while not (refused := _refused(site) - before) and _has_open_jobs(site):
            if monotonic() - start > 2 * site.lease_s + 30:
                break
            sleep(0.05)
    finally:
        filler.unlink(missing_ok=True)
    if not refused:
        return None
    return f"filled the disk of {folder} with {n_bytes:,} bytes until a job could not write"


def _store(site: Site) -> Path | None:
    """The folder that the run writes visual tokens into; None where it writes none to a disk."""
    with site.database.begin() as connection:
        run = runs.get_run(connection, site.run_id)
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


def _refused(site: Site) -> set[tuple[int, int]]:
    """Jobs that went back because they could not write, each with the token of its last claim."""
    with site.database.begin() as connection:
        rows = connection.execute(
            text(
                "SELECT id, token FROM job WHERE run_id = :run AND state = 'queued' "
                "AND error LIKE :said"
            ),
            {"run": site.run_id, "said": f"%[Errno {errno.ENOSPC}]%"},
        )
        return {(row.id, row.token) for row in rows}


def _has_open_jobs(site: Site) -> bool:
    with site.database.begin() as connection:
        found = connection.execute(
            text(
                "SELECT EXISTS (SELECT FROM job WHERE run_id = :run "
                "AND state IN ('queued', 'running'))"
            ),
            {"run": site.run_id},
        )
        return bool(found.scalar_one())


def _fill(filler: Path) -> int:
    """Bytes that were written until no more would go in."""
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
