"""An image that is as an import read it is not read again; one that may have changed is."""

import hashlib
import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nightshift.producers import row_checks
from nightshift.producers.catalog_import import import_catalog
from nightshift.producers.query_import import import_queries
from nightshift.stores.files.blobs import BlobStore
from tests.producers.source_files import image_bytes, write_image, write_jsonl, write_tar

COLORS = ("red", "green", "blue", "white")


def settle(path: Path, *, seconds_ago: float = 60.0) -> None:
    """Give a file a time of change that lies in the past."""
    then = time.time() - seconds_ago
    os.utime(path, (then, then))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images that are read, as often as they are."""
    names: list[str] = []

    def noting(function):
        def note(source, *arguments, **options):
            names.append(Path(arguments[0] if isinstance(source, bytes) else source).name)
            return function(source, *arguments, **options)

        return note

    for name in ("verify_image", "verify_bytes", "sha256"):
        monkeypatch.setattr(row_checks, name, noting(getattr(row_checks, name)))
    return names


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three settled images and the rows that name them."""
    for number in range(3):
        settle(write_image(tmp_path / f"{number}.png", COLORS[number]))
    rows = [{"id": str(number), "image": f"{number}.png"} for number in range(3)]
    return write_jsonl(tmp_path / "rows.jsonl", rows)


def test_unchanged_images_are_read_once(database, photos, read):
    import_catalog(database, "shop", str(photos))
    assert sorted(read) == ["0.png", "1.png", "2.png"]
    read.clear()

    second = import_catalog(database, "shop", str(photos))

    assert read == []
    assert (second.unchanged, second.failed) == (3, 0)


@pytest.mark.parametrize("what", ["size", "time", "both"])
def test_an_image_whose_size_or_time_changed_is_read_again(database, photos, read, what):
    import_catalog(database, "shop", str(photos))
    read.clear()
    image = photos.parent / "1.png"
    before = image.stat()
    if what != "time":
        write_image(image, "black")
        image.write_bytes(image.read_bytes() + b"\0")
    if what == "size":
        os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        settle(image, seconds_ago=30)

    second = import_catalog(database, "shop", str(photos))

    assert read == ["1.png"]
    assert second.accepted == (0 if what == "time" else 1)


def test_an_image_that_changed_a_moment_ago_is_read_each_time(database, photos, read):
    (photos.parent / "2.png").touch()
    import_catalog(database, "shop", str(photos))
    read.clear()

    import_catalog(database, "shop", str(photos))

    assert read == ["2.png"]


def test_verify_always_reads_and_decodes_all_and_finds_what_kept_its_size_and_time(
    database, photos, read
):
    import_catalog(database, "shop", str(photos))
    image = photos.parent / "0.png"
    before, damaged = image.stat(), bytearray(image.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    image.write_bytes(damaged)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    read.clear()
    assert import_catalog(database, "shop", str(photos)).failed == 0
    assert read == []

    summary = import_catalog(database, "shop", str(photos), verify="always")

    assert sorted(set(read)) == ["0.png", "1.png", "2.png"]
    assert summary.failed == 1


def test_an_image_that_was_not_decoded_is_decoded_by_an_import_that_verifies(
    database, photos, read
):
    import_catalog(database, "shop", str(photos), verify="never")
    read.clear()

    import_catalog(database, "shop", str(photos))
    assert sorted(read) == ["0.png", "1.png", "2.png"]
    read.clear()

    import_catalog(database, "shop", str(photos), verify="never")
    assert read == []


def test_images_of_a_tar_are_known_by_the_tars_size_and_time(database, tmp_path, read):
    tar = write_tar(
        tmp_path / "shard.tar", [(f"{n}.png", image_bytes(COLORS[n])) for n in range(4)]
    )
    settle(tar)
    import_catalog(database, "shop", str(tar))
    assert len(read) == 4
    read.clear()

    assert import_catalog(database, "shop", str(tar)).unchanged == 4
    assert read == []

    settle(tar, seconds_ago=30)
    assert import_catalog(database, "shop", str(tar)).unchanged == 4
    assert len(read) == 4


def test_images_in_cells_are_known_by_their_bytes(database, tmp_path, read):
    cells = [{"bytes": image_bytes(COLORS[n]), "path": None} for n in range(3)]
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"id": ["a", "b", "c"], "image": cells}), file)
    blobs = BlobStore(tmp_path / "blobs")
    import_catalog(database, "shop", str(file), blobs=blobs)
    assert len(read) == 3
    read.clear()

    assert import_catalog(database, "shop", str(file), blobs=blobs).unchanged == 3
    assert read == []


def test_a_known_image_is_refused_all_the_same_once_it_lies_outside_the_roots(
    database, photos, tmp_path, read
):
    import_catalog(database, "shop", str(photos))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    rows = [{"id": "0", "image": str(photos.parent / "0.png")}]
    outside = write_jsonl(elsewhere / "rows.jsonl", rows)
    read.clear()

    assert import_catalog(database, "other", str(outside)).failed == 1
    assert read == []


def test_an_image_that_is_gone_fails_although_it_is_known(database, photos):
    import_catalog(database, "shop", str(photos))
    (photos.parent / "1.png").unlink()

    assert import_catalog(database, "shop", str(photos)).failed == 1


def test_queries_share_what_catalogues_read(database, photos, read):
    import_catalog(database, "shop", str(photos))
    read.clear()

    assert import_queries(database, str(photos)).n_queries == 3
    assert read == []


def test_the_digest_that_is_kept_is_that_of_the_bytes(database, photos):
    import_catalog(database, "shop", str(photos))
    import_catalog(database, "again", str(photos))

    expected = {
        hashlib.sha256((photos.parent / f"{n}.png").read_bytes()).hexdigest() for n in range(3)
    }
    with database.begin() as connection:
        rows = connection.exec_driver_sql("SELECT parts FROM content").all()
    assert {part["sha256"] for (parts,) in rows for part in parts} == expected
