"""Every file of a source is read, or counted and named."""

import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from nightshift.producers.sources import BadRow, SkippedFiles, open_source
from nightshift.stores.files.image_formats import DECODED_FORMATS, is_image_name
from nightshift.stores.files.images import decode_image
from tests.producers.source_files import image_bytes, write_image, write_jsonl, write_tar


def read(source: Path) -> tuple[list, SkippedFiles]:
    left_out = SkippedFiles()
    return list(open_source(str(source), left_out)), left_out


def ids(rows: list) -> list[str | None]:
    return [row.fields.get("id") or row.default_id for row in rows]


@pytest.mark.parametrize(
    ("form", "suffix"), [(f, s) for f in DECODED_FORMATS for s in DECODED_FORMATS[f]]
)
def test_what_the_decoder_reads_the_readers_look_for(tmp_path: Path, form: str, suffix: str):
    data = image_bytes(form=form, size=(32, 32))
    (tmp_path / f"a{suffix.upper()}").write_bytes(data)
    archive = write_tar(tmp_path / "t.tar", [(f"a{suffix}", data)])

    assert decode_image(data, "x").size == (32, 32)
    assert is_image_name(f"x{suffix}")
    (tmp_path / "t.tar").rename(tmp_path.parent / "t.tar")
    assert ids(read(tmp_path)[0]) == ["a"]
    (sample,) = read(tmp_path.parent / archive.name)[0]
    assert [image.data for image in sample.fields["image"]] == [data]


def test_a_folder_names_what_it_leaves_out(tmp_path: Path):
    for name in ("a.jfif", "b.jpe", "c.JPG", "d.avif", "h.heic"):
        (tmp_path / name).write_bytes(image_bytes(form="JPEG"))
    for name in (
        "a.TXT", "notes.txt", "a.json", "part.jsonl", "noext", "README.md", ".hidden", "Thumbs.db",
        "__MACOSX/x", "sub/SHA256SUMS",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a caption")
    (tmp_path / "part.jsonl").rename(tmp_path / "sub" / "part.jsonl")

    rows, left_out = read(tmp_path)

    assert ids(rows) == ["a", "b", "c", "d", "h"]
    assert rows[0].fields["text"] == "a caption"
    assert sorted(left_out.names) == ["a.json", "noext", "notes.txt", "sub/part.jsonl"]
    assert "4 files were left out" in left_out.message()


def test_a_folder_of_shards_names_those_of_other_kinds(tmp_path: Path):
    write_jsonl(tmp_path / "0.jsonl", [{"id": "a", "text": "x"}])
    for name in ("1.jsonl.zst", "2.json", "3.jsonl.bz2", "4.arrow", "below/5.parquet", "_SUCCESS"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    write_image(tmp_path / "images" / "a.png")

    rows, left_out = read(tmp_path)

    assert ids(rows) == ["a"]
    assert left_out.count == 5
    assert "below/5.parquet" in left_out.names


def test_a_pattern_names_what_it_matches_and_nobody_reads(tmp_path: Path):
    write_image(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.docx").touch()

    rows, left_out = read(tmp_path / "*")

    assert ids(rows) == ["a"]
    assert rows[0].fields["text"] == "one"
    assert left_out.names == ["b.docx"]


def test_a_folder_of_nothing_else_says_what_it_holds(tmp_path: Path):
    (tmp_path / "a.docx").touch()

    ((row,), _) = read(tmp_path)

    assert row.reason == "empty_source"
    assert "a.docx" in row.message


def test_a_tar_knows_images_by_their_bytes_and_names_the_rest(tmp_path: Path):
    path = write_tar(
        tmp_path / "s.tar",
        [
            ("1.heic", b"\0\0\0\x18ftypheic"),
            ("1.txt", b"one"),
            ("2.img", image_bytes()),
            ("2.txt", b"two"),
            ("3.cls", b"7"),
            ("3.txt", b"three"),
        ],
    )
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("4.png")
        link.type, link.linkname = tarfile.LNKTYPE, "2.img"
        tar.addfile(link)

    rows, left_out = read(path)

    assert ids(rows) == ["1", "2", "3"]
    assert ["image" in row.fields for row in rows] == [True, True, False]
    assert left_out.names == ["s.tar:3.cls", "s.tar:4.png"]


@pytest.mark.parametrize("form", ["jsonl", "csv", "JSONL"])
def test_the_layout_of_imagefolder_is_read_in_every_folder(tmp_path: Path, form: str):
    for folder in ("train", "test/deep"):
        for name in ("1.jpg", "2.jpg", "unnamed.jpg"):
            write_image(tmp_path / folder / name)
        rows = [{"file_name": f"{n}.jpg", "text": f"caption {n}"} for n in (1, 2)]
        file = tmp_path / folder / f"metadata.{form}"
        if form == "csv":
            lines = ["file_name,text", *(f"{row['file_name']},{row['text']}" for row in rows)]
            file.write_text("\n".join(lines))
        else:
            write_jsonl(file, rows)
    write_image(tmp_path / "plain.jpg")

    rows, left_out = read(tmp_path)

    assert ids(rows) == ["plain", "test/deep/1", "test/deep/2", "train/1", "train/2"]
    assert [row.fields.get("text") for row in rows][1:] == ["caption 1", "caption 2"] * 2
    assert sorted(left_out.names) == ["test/deep/unnamed.jpg", "train/unnamed.jpg"]


def test_metadata_that_names_no_image_is_data_at_the_top_and_left_out_below(tmp_path: Path):
    write_jsonl(tmp_path / "metadata.jsonl", [{"id": "a", "text": "x"}])
    write_image(tmp_path / "f" / "b.png")
    write_jsonl(tmp_path / "f" / "metadata.jsonl", [{"id": "c", "text": "x"}])

    assert ids(read(tmp_path)[0]) == ["a"]
    rows, left_out = read(tmp_path / "f")
    assert ids(rows) == ["c"]
    (tmp_path / "metadata.jsonl").unlink()
    rows, left_out = read(tmp_path)
    assert ids(rows) == ["f/b"]
    assert left_out.names == ["f/metadata.jsonl"]


def test_names_are_fit_for_a_terminal(tmp_path: Path):
    left_out = SkippedFiles()
    left_out.add("\x1b[31mred.doc")
    left_out.add(os.fsdecode(b"\xff.doc"))

    assert "\x1b" not in left_out.message()
    json.dumps(left_out.names).encode()
    left_out.message().encode()


def test_a_hundred_kinds_take_no_room():
    left_out = SkippedFiles()
    for number in range(1000):
        left_out.add(f"{number}.x{number}")

    assert left_out.count == 1000
    assert len(left_out.names) < 60


def test_a_caption_that_cannot_be_read_names_its_encoding(tmp_path: Path):
    write_image(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes("ein Kreis".encode("utf-16"))
    write_image(tmp_path / "b.png")
    (tmp_path / "b.txt").write_bytes(b"x" * 3 * 2**20)

    first, second = read(tmp_path)[0]

    assert isinstance(first, BadRow)
    assert "iconv -f UTF-16" in first.message
    assert second.reason == "text_too_long"


def test_an_image_of_a_mode_of_its_own_is_found_in_a_tar(tmp_path: Path):
    buffer = io.BytesIO()
    Image.new("CMYK", (8, 8)).save(buffer, "TIFF")
    path = write_tar(tmp_path / "t.tar", [("a.bin", buffer.getvalue())])

    ((row,), left_out) = read(path)

    assert len(row.fields["image"]) == 1
    assert not left_out.count
