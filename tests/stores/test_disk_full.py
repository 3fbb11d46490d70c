"""A full disk is an outage that says so; nothing half-written is left behind."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import text

from nightshift.producers.catalog_import import import_catalog
from nightshift.schema.errors import ConflictError, ServiceUnavailableError
from nightshift.stack.embedded import Stack
from nightshift.stack.faults.disks import fill_disk
from nightshift.stack.faults.site import Site
from nightshift.stores.files.blobs import BlobStore
from nightshift.stores.ledger.claims import Ledger
from nightshift.stores.postgres.database import Database
from nightshift.stores.tokens.shard_files import shard_name
from nightshift.stores.tokens.shards import writing_shard
from tests.stores.test_token_pruning import Kept, kept_in


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_blob_that_does_not_fit_leaves_nothing(small_disk: Path):
    blobs = BlobStore(small_disk)
    kept = blobs.put(os.urandom(2**19))

    with pytest.raises(ServiceUnavailableError, match="make room") as caught:
        blobs.put(os.urandom(2**20))

    assert caught.value.service == "files"
    assert files(small_disk) == [Path(kept)]


def test_an_import_stops_at_a_full_disk_and_is_completed_when_there_is_room(
    small_disk: Path, tmp_path: Path, database_url: str
):
    pictures = [os.urandom(2**18) for _ in range(8)]
    pq.write_table(pa.table({"id": [*"abcdefgh"], "image": pictures}), tmp_path / "t.parquet")
    source = str(tmp_path / "t.parquet")
    with Database(database_url) as database:
        with pytest.raises(ServiceUnavailableError, match="make room"):
            import_catalog(database, "shop", source, verify=False, blobs=BlobStore(small_disk))
        with database.begin() as connection:
            stopped = connection.execute(text("SELECT * FROM catalog_import")).one()
            reasons = connection.execute(text("SELECT reason FROM failure")).scalars().all()

        room = BlobStore(tmp_path / "room")
        summary = import_catalog(database, "shop", source, verify=False, blobs=room)

    assert stopped.accepted + stopped.failed + stopped.unchanged == stopped.read
    assert stopped.finished_at is not None
    assert reasons == ["interrupted"]
    assert summary.read == 8
    assert summary.accepted + summary.unchanged == 8


def test_the_fault_fills_a_small_disk_until_a_job_could_not_write(
    small_disk: Path, database: Database, stack: Stack
):
    kept = kept_in(database, str(small_disk / "tokens"))
    kept.set_run("running")
    site = Site(stack=stack, database=database, run_id=kept.run_id, lease_s=5)
    ledger = Ledger(database, worker_id="w", lease_s=60, max_attempts=3)

    with ThreadPoolExecutor(1) as pool:
        struck = pool.submit(fill_disk, site)
        while not (refused := _tried_to_write(ledger, kept)) and not struck.done():
            time.sleep(0.2)
        said = struck.result()

    assert "make room" in str(refused)
    assert str(small_disk) in said
    assert files(small_disk) == [], "there is room again"


def test_the_fault_spares_a_large_disk(tmp_path: Path, database: Database, stack: Stack):
    kept = kept_in(database, str(tmp_path / "tokens"))

    with pytest.raises(ConflictError, match="small file system"):
        fill_disk(Site(stack=stack, database=database, run_id=kept.run_id, lease_s=5))


def _tried_to_write(ledger: Ledger, kept: Kept) -> ServiceUnavailableError | None:
    """What stopped a worker that has much to write; it hands its job back, done or not."""
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
