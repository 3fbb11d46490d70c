"""A full disk is an outage that says so; nothing half-written is left behind."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import text

from nightshift.producers.catalog_import import import_catalog
from nightshift.schema.errors import ServiceUnavailableError
from nightshift.stores.files.blobs import BlobStore
from nightshift.stores.postgres.database import Database


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
    images = [os.urandom(2**18) for _ in range(8)]
    pq.write_table(pa.table({"id": [*"abcdefgh"], "image": images}), tmp_path / "t.parquet")
    source = str(tmp_path / "t.parquet")
    with Database(database_url) as database:
        with pytest.raises(ServiceUnavailableError, match="make room"):
            import_catalog(database, "shop", source, verify="never", blobs=BlobStore(small_disk))
        with database.begin() as connection:
            stopped = connection.execute(text("SELECT * FROM catalog_import")).one()
            reasons = connection.execute(text("SELECT reason FROM failure")).scalars().all()

        room = BlobStore(tmp_path / "room")
        summary = import_catalog(database, "shop", source, verify="never", blobs=room)

    assert stopped.accepted + stopped.failed + stopped.unchanged == stopped.read
    assert stopped.finished_at is not None
    assert reasons == ["interrupted"]
    assert summary.read == 8
    assert summary.accepted + summary.unchanged == 8
