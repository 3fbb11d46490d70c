"""Files that Milvus Lite cannot read are moved out of its way, and no others are."""

import json
from pathlib import Path

import pytest

from nightshift.stack.embedded.milvus_files import set_aside_damaged


def _collection(home: Path, name: str) -> Path:
    folder = home / "collections" / name
    data = folder / "partitions" / "_default" / "data"
    data.mkdir(parents=True)
    (folder / "schema.json").write_text(json.dumps({"collection_name": name}))
    (folder / "manifest.json").write_text("{}")
    (data / "data_1.parquet").write_bytes(b"PAR1....PAR1")
    return folder


def _damage(folder: Path, how: str) -> None:
    match how:
        case "schema is gone":
            (folder / "schema.json").unlink()
        case "schema is garbage":
            (folder / "schema.json").write_bytes(b"\xff{")
        case "manifests are cut short":
            (folder / "manifest.json").write_text("{")
            (folder / "manifest.json.prev").write_text("")
        case "vectors are cut short":
            (folder / "partitions/_default/data/data_1.parquet").write_bytes(b"PAR1..")
        case "it is empty":
            for path in sorted(folder.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize(
    "how",
    ["schema is gone", "schema is garbage", "manifests are cut short", "vectors are cut short",
     "it is empty"],
)  # fmt: skip
def test_a_damaged_collection_is_set_aside_and_the_others_stay(tmp_path: Path, how: str):
    home = tmp_path / "milvus"
    kept, damaged = _collection(home, "kept"), _collection(home, "damaged")
    _damage(damaged, how)

    (place,) = set_aside_damaged(home)

    assert place.parent == tmp_path / "milvus-damaged"
    assert place.name.startswith("damaged-")
    assert kept.exists()
    assert not damaged.exists()
    assert set_aside_damaged(home) == []


def test_what_can_be_read_stays(tmp_path: Path):
    home = tmp_path / "milvus"
    folder = _collection(home, "kept")
    (home / "aliases.json").write_text("{}")
    (folder / "manifest.json").write_text("{")
    (folder / "manifest.json.prev").write_text("{}")
    _collection(home, "new").joinpath("manifest.json").unlink()

    assert set_aside_damaged(home) == []
    assert set_aside_damaged(tmp_path / "not there") == []


def test_aliases_that_cannot_be_read_are_set_aside(tmp_path: Path):
    home = tmp_path / "milvus"
    _collection(home, "kept")
    (home / "aliases.json").write_text("{")

    assert len(set_aside_damaged(home)) == 1
    assert (home / "collections" / "kept").exists()
