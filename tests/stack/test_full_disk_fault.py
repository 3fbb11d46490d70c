"""The fault `fill-disk` fills a small disk, and only a small one."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nightshift.schema.errors import ConflictError, ServiceUnavailableError
from nightshift.stack import Stack
from nightshift.stack.faults import FaultTarget
from nightshift.stack.faults.disks import fill_disk
from nightshift.stores.ledger.claims import Ledger
from nightshift.stores.postgres.database import Database
from nightshift.stores.tokens.shard_files import shard_name
from nightshift.stores.tokens.shards import writing_shard
from tests.stores.tokens.test_token_pruning import Kept, kept_in


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_the_fault_fills_a_small_disk_until_a_job_could_not_write(
    small_disk: Path, database: Database, stack: Stack
):
    kept = kept_in(database, str(small_disk / "tokens"))
    kept.set_run("running")
    target = FaultTarget(stack=stack, database=database, run_id=kept.run_id, lease_s=5)
    ledger = Ledger(database, worker_id="w", lease_s=60, max_attempts=3)

    with ThreadPoolExecutor(1) as pool:
        struck = pool.submit(fill_disk, target)
        while not (refused := _tried_to_write(ledger, kept)) and not struck.done():
            time.sleep(0.2)
        said = struck.result()

    assert "make room" in str(refused)
    assert str(small_disk) in said
    assert files(small_disk) == [], "there is room again"


def test_the_fault_spares_a_large_disk(tmp_path: Path, database: Database, stack: Stack):
    kept = kept_in(database, str(tmp_path / "tokens"))

    with pytest.raises(ConflictError, match="small file system"):
        fill_disk(FaultTarget(stack=stack, database=database, run_id=kept.run_id, lease_s=5))


def _tried_to_write(ledger: Ledger, kept: Kept) -> ServiceUnavailableError | None:
    """The error that stopped a worker with much to write; the job is handed back in any case."""
    claim = ledger.claim(kept.run_id, 1)
    assert claim is not None
    address = f"{kept.token_set.address}/{shard_name(kept.run_id, 1)}"
    try:
        with writing_shard(address) as writer:
            writer.add(os.urandom(2**16))
    except ServiceUnavailableError as error:
        ledger.hand_back(claim, str(error))
        return error
    Path(address).unlink()
    ledger.hand_back(claim, "")
    return None
