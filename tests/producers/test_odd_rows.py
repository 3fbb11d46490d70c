"""Odd cells, addresses and encodings: the right value, or a reason that says what to do."""

import base64
import bz2
import gzip
import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nightshift.producers.row_checks import RowChecker
from nightshift.producers.sources import BadRow, FieldNames, RawRow, draft_of, open_source
from nightshift.producers.sources.rows import EmbeddedImage
from nightshift.schema.errors import ConfigurationError, InputError
from nightshift.schema.records import ImagePart, TextPart
from nightshift.schema.states import SubjectKind
from nightshift.stores.catalog.catalogs import CheckedRecord
from nightshift.stores.files.addresses import MemberAddress, resolve_beside
from nightshift.stores.files.blobs import BlobStore
from nightshift.stores.files.roots import ImageRoots
from tests.producers.source_files import image_bytes, write_image, write_jsonl, write_tar

DAY_US = 86_400_000_000
FAR_US = 100_000 * 366 * DAY_US


def outcome(fields: dict, folder: str = "/data"):
    """The draft of a row, or the reason why there is none."""
    try:
        return draft_of(RawRow(position="f:1", fields=fields, folder=folder), FieldNames())
    except InputError as error:
        return error.reason


def drafts(source: Path):
    return [
        row if isinstance(row, BadRow) else outcome(dict(row.fields), row.folder)
        for row in open_source(str(source))
    ]


def odd_columns() -> dict[str, pa.Array]:
    """Values that Python cannot hold, or that need what is not installed."""
    fine_and = {
        "date": pa.array([0, 10**7], pa.date32()),
        "micros": pa.array([0, FAR_US], pa.timestamp("us")),
        "negative": pa.array([0, -FAR_US], pa.timestamp("us", "UTC")),
        "berlin": pa.array([0, 253402300799 * 10**6], pa.timestamp("us", "Europe/Berlin")),
        "nowhere": pa.array([0, 1], pa.timestamp("s", "Mars/Olympus")),
        "nanos": pa.array([0, 1], pa.timestamp("ns")),
        "time": pa.array([0, 1], pa.time64("ns")),
        "duration": pa.array([0, 2**62], pa.duration("us")),
        "decimal": pa.array([1, 2], pa.decimal128(38, 37)),
        "half": pa.array([1.5, float("nan")], pa.float16()),
        "unsigned": pa.array([0, 2**64 - 1], pa.uint64()),
        "endless": pa.array([float("inf"), float("-inf")]),
        "raw": pa.array([b"\x00", b"\xff\xfe"]),
        "map": pa.array([[], [("k", 1), ("k", 2)]], pa.map_(pa.string(), pa.int64())),
        "category": pa.array(["a", None]).dictionary_encode(),
    }
    fine_and["nested"] = pa.StructArray.from_arrays([fine_and["micros"]], ["at"])
    fine_and["listed"] = pa.ListArray.from_arrays(
        pa.array([0, 1, 2], pa.int32()), fine_and["micros"]
    )
    return fine_and


@pytest.mark.parametrize("name", odd_columns())
def test_an_odd_cell_of_a_parquet_file_costs_no_row(tmp_path: Path, name: str):
    column = odd_columns()[name]
    table = pa.table({"id": ["a", "b"], "text": ["one", "two"], "m": column})
    pq.write_table(table, tmp_path / "t.parquet")

    first, second = drafts(tmp_path / "t.parquet")

    assert (first.id, second.id) == ("a", "b")
    assert json.loads(second.metadata).keys() == {"m"}


def test_a_date_beyond_python_is_kept_as_text(tmp_path: Path):
    column = pa.array([253402300800 * 10**6, 1], pa.timestamp("us", "UTC"))
    table = pa.table({"id": ["a", "b"], "text": ["x", "y"], "at": column})
    pq.write_table(table, tmp_path / "t.parquet")

    first, second = drafts(tmp_path / "t.parquet")

    assert json.loads(first.metadata)["at"].startswith("10000-01-01")
    assert json.loads(second.metadata)["at"].startswith("1970-01-01")


def test_two_parquet_columns_of_one_name_end_the_file(tmp_path: Path):
    table = pa.Table.from_arrays([pa.array(["a"])] * 3, names=["id", "text", "text"])
    pq.write_table(table, tmp_path / "t.parquet")

    (row,) = open_source(str(tmp_path / "t.parquet"))

    assert (row.reason, row.ends_file) == ("malformed_header", True)
    assert "'text'" in row.message


def test_a_json_field_that_stands_twice_is_refused_but_not_deep_inside(tmp_path: Path):
    source = write_jsonl(
        tmp_path / "t.jsonl",
        [
            b'{"id": "a", "text": "x", "text": "y"}',
            b'{"id": "b", "text": "x", "m": {"k": 1, "k": 2}}',
        ],
    )

    first, second = drafts(source)

    assert first.reason == "malformed_line"
    assert "'text'" in first.message
    assert second.metadata == '{"m": {"k": 2}}'


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"text": "x", "image": None}, (TextPart(text="x"),)),
        ({"text": "x", "image": {"bytes": None, "path": None}}, (TextPart(text="x"),)),
        ({"text": "x", "image": [{"bytes": None, "path": None}, None]}, (TextPart(text="x"),)),
        ({"text": "x", "image": " "}, (TextPart(text="x"),)),
        ({"text": "", "image": "a.png"}, (ImagePart(uri="/data/a.png"),)),
        ({"text": ["", " \n"], "image": "a.png"}, (ImagePart(uri="/data/a.png"),)),
        ({"text": "", "image": ""}, "empty_text"),
        ({"text": ""}, "empty_text"),
        ({"image": {"bytes": None, "path": None}}, "no_content"),
        ({"image": {"bytes": b"", "path": None}}, (EmbeddedImage(data=b""),)),
        ({"image": {"bytes": b"", "path": "a.png"}}, (ImagePart(uri="/data/a.png"),)),
        (
            {"parts": [{"image": {"bytes": None, "path": None}, "text": "x"}]},
            (TextPart(text="x"),),
        ),
        ({"text": "x", "image": ["a.png"] * 1001}, "too_many_parts"),
        ({"id": 10**5000, "text": "x"}, "id_too_long"),
    ],
)
def test_what_is_no_text_and_no_image(fields: dict, expected: object):
    result = outcome({"id": "a", **fields})

    assert (result if isinstance(expected, str) else result.parts) == expected


def test_numbers_that_no_column_holds_cost_no_row():
    result = outcome({"id": "a", "text": "x", "n": [10**400, 10**5000, 1e308 * 10, -(2**70)]})

    assert json.loads(result.metadata)["n"] == [10**400, None, None, -(2**70)]


# --- images in the row -------------------------------------------------------------------------


PNG = image_bytes()
BASE64 = base64.b64encode(PNG).decode()


@pytest.mark.parametrize(
    "value",
    [
        f"data:image/png;base64,{BASE64}",
        f"DATA:;base64,{BASE64.rstrip('=')}",
        "data:image/png," + "".join(f"%{byte:02x}" for byte in PNG),
        BASE64,
        "\n".join(BASE64[at : at + 60] for at in range(0, len(BASE64), 60)),
        base64.urlsafe_b64encode(PNG).decode(),
        base64.b64encode(image_bytes(form="JPEG")).decode(),
        {"bytes": BASE64},
        {"bytes": f"data:image/png;base64,{BASE64}", "path": "a.png"},
    ],
)
def test_an_image_that_stands_in_the_row_is_taken(value: object, tmp_path: Path):
    checker = RowChecker(names=FieldNames(), kind=SubjectKind.ITEM, blobs=BlobStore(tmp_path))
    row = RawRow(position="f:1", fields={"id": "a", "image": value}, folder="/data")

    (record,) = checker.records([row])

    assert isinstance(record, CheckedRecord)
    assert Path(record.parts[0].uri).read_bytes() in {PNG, image_bytes(form="JPEG")}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("data:image/png;base64,%%%", "image_unreadable"),
        ("data:nothing", "image_unreadable"),
        ({"bytes": "no base64!"}, "image_unreadable"),
        ("A" * 100_000, "image_not_path"),
        ("C:\\images\\a.png", "image_missing"),
        ("//cdn.example.com/a.png", "image_missing"),
        ("tar://x?offset=" + "9" * 5000 + "&size=1::http://e.example/x.tar", "image_missing"),
        ("tar://x?offset=0&size=99999999999999999999::/data/x.tar", "image_missing"),
        ("tar://x::/data/x.tar", "image_missing"),
        ("file:///data/a%00.png", "nul_character"),
        ("file:///data/a%FF.png", "not_utf8"),
    ],
)
def test_an_image_that_is_none_has_a_reason(value: object, expected: str):
    assert outcome({"id": "a", "image": value}) == expected


@pytest.mark.parametrize(
    ("offset", "size"),
    [(10**18 - 1, 1), (0, 10**18 - 1), (0, 60 * 10**9), (50, 10), (2**62, 2**30)],
)
def test_a_place_that_no_tar_has_costs_one_row(tmp_path: Path, offset: int, size: int):
    archive = write_tar(tmp_path / "x.tar", [("1.png", PNG)])
    address = MemberAddress(archive=str(archive), name="1.png", offset=offset, size=size)
    checker = RowChecker(
        names=FieldNames(), kind=SubjectKind.ITEM, roots=ImageRoots([str(tmp_path)])
    )
    rows = [
        RawRow(position="f:1", fields={"id": "a", "image": str(address)}, folder=str(tmp_path)),
        RawRow(position="f:2", fields={"id": "b", "text": "x"}, folder=str(tmp_path)),
    ]

    first, second = checker.records(rows)

    assert first.failure.reason in {"image_missing", "image_too_large", "image_unreadable"}
    assert second.external_id == "b"


@pytest.mark.parametrize("name", ["a b.png", "ü.png", "100%25.png", "a#?.png"])
def test_what_as_uri_writes_is_read(tmp_path: Path, name: str):
    path = write_image(tmp_path / "my images" / name)

    assert resolve_beside("/elsewhere", path.as_uri()) == str(path)
    assert resolve_beside("/elsewhere", f"FILE://localhost{path.as_uri()[7:]}") == str(path)


def test_a_file_url_of_another_machine_stays_one():
    assert resolve_beside("/data", "file://host/a.png") == "file://host/a.png"


# --- encodings and separators ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.tsv"])
@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
def test_utf_16_and_32_are_named(tmp_path: Path, name: str, encoding: str):
    (tmp_path / name).write_bytes("id,text\na,ein Text\nb,noch einer\n".encode(encoding))

    (row,) = open_source(str(tmp_path / name))

    assert (row.reason, row.ends_file) == ("not_utf8", True)
    assert "iconv -f UTF-" in row.message


@pytest.mark.parametrize("header", ["id{}text", '"id"{}"text"', "id{}text{}price,eur"])
@pytest.mark.parametrize(("sign", "word"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_another_separator_is_named(tmp_path: Path, sign: str, word: str, header: str):
    (tmp_path / "t.csv").write_text(f"{header.format(sign, sign)}\na{sign}b\n")

    (row,) = open_source(str(tmp_path / "t.csv"))

    assert (row.reason, row.ends_file) == ("malformed_header", True)
    assert word in row.message


def test_a_header_in_another_encoding_is_named(tmp_path: Path):
    (tmp_path / "t.csv").write_bytes("id,größe\na,1\n".encode("latin-1"))

    (row,) = open_source(str(tmp_path / "t.csv"))

    assert (row.reason, row.ends_file) == ("not_utf8", True)


@pytest.mark.parametrize(
    ("name", "data"),
    [("t.csv", b"id,text\ra,x\rb,y\r"), ("t.jsonl", b'{"id": "a"}\r{"id": "b"}\r')],
)
def test_line_ends_of_old_macs_are_named(tmp_path: Path, name: str, data: bytes):
    (tmp_path / name).write_bytes(data)

    (row,) = open_source(str(tmp_path / name))

    assert "tr '\\r'" in row.message


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"PK\x03\x04rest", "zip"),
        (b"BZh9rest", "bunzip2"),
        (b"\x28\xb5\x2f\xfdrest", "unzstd"),
        (b"PAR1rest", ".parquet"),
        (gzip.compress(gzip.compress(b"id,text\na,x\n", mtime=0), mtime=0), "gunzip"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path: Path, data: bytes, word: str):
    (tmp_path / "t.csv").write_bytes(data)

    (row,) = open_source(str(tmp_path / "t.csv"))

    assert word in row.message


@pytest.mark.parametrize("name", ["t.JSONL.GZ", "t.jsonl", "t.Jsonl.gz"])
def test_gzip_is_known_by_its_bytes_and_by_a_name_in_any_case(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(gzip.compress(b'{"id": "a", "text": "x"}\n'))

    (draft,) = drafts(tmp_path / name)

    assert draft.id == "a"


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("t.xlsx", "CSV"),
        ("t.zip", "unpack"),
        ("t.txt", ".tsv"),
        ("t.json", "jq"),
        ("t.jsonl.zst", "unzstd"),
        ("t.tgz", ".tar"),
    ],
)
def test_a_source_of_another_kind_says_what_to_do(tmp_path: Path, name: str, word: str):
    (tmp_path / name).touch()

    with pytest.raises(ConfigurationError, match=word):
        open_source(str(tmp_path / name))


def test_marks_of_utf_8_are_no_part_of_any_text(tmp_path: Path):
    mark = b"\xef\xbb\xbf"
    write_image(tmp_path / "f" / "a.png")
    (tmp_path / "f" / "a.txt").write_bytes(mark + b"a red circle\n")
    members = [("1.txt", mark + b"a red circle"), ("1.json", mark + b'{"n": 1}')]
    write_tar(tmp_path / "t.tar", members)
    lines = [mark + b'{"id": "a", "text": "a red circle"}'] * 2  # as `cat` joins two files
    write_jsonl(tmp_path / "t.jsonl", lines)

    texts = [
        part.text
        for source in (tmp_path / "f", tmp_path / "t.tar", tmp_path / "t.jsonl")
        for row in open_source(str(source))
        for part in draft_of(row, FieldNames()).parts
        if isinstance(part, TextPart)
    ]

    assert texts == ["a red circle"] * 4


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00", "HEIC"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<?xml version='1.0'?><svg xmlns='x'/>", "SVG"),
    ],
)
def test_an_image_that_cannot_be_decoded_says_what_it_is(tmp_path: Path, data: bytes, word: str):
    (tmp_path / "a.png").write_bytes(data)
    checker = RowChecker(
        names=FieldNames(), kind=SubjectKind.ITEM, roots=ImageRoots([str(tmp_path)])
    )

    (rejected,) = checker.records(open_source(str(tmp_path)))

    assert rejected.failure.reason == "image_unreadable"
    assert word in rejected.failure.message


def test_a_separator_within_a_column_of_its_own_is_no_other_separator(tmp_path: Path):
    (tmp_path / "t.csv").write_text("id,text,tags a|b|c|d\na,x,b\n")

    (draft,) = drafts(tmp_path / "t.csv")

    assert draft.id == "a"


def test_a_source_may_be_a_file_url(tmp_path: Path):
    source = write_jsonl(write_image(tmp_path / "my ü" / "a.png").parent / "t.jsonl", [{"id": "a"}])

    (row,) = open_source(source.as_uri())

    assert row.folder == str(source.parent)


def test_json_that_is_no_json_lines_says_so(tmp_path: Path):
    (tmp_path / "t.jsonl").write_text(json.dumps([{"id": "a"}, {"id": "b"}], indent=1))

    assert "one object, {…}, a line" in next(open_source(str(tmp_path / "t.jsonl"))).message


@pytest.mark.parametrize(
    ("name", "pack", "word"),
    [("t.tar", gzip.compress, "gunzip"), ("u.tar", bz2.compress, "bunzip2")],
)
def test_a_tar_that_is_packed_says_how_to_unpack_it(tmp_path: Path, name, pack, word: str):
    write_tar(tmp_path / name, [("a.txt", b"text")])
    (tmp_path / name).write_bytes(pack((tmp_path / name).read_bytes()))

    (row,) = open_source(str(tmp_path / name))

    assert word in row.message


def test_of_joined_tars_the_second_is_not_lost_in_silence(tmp_path: Path):
    write_tar(tmp_path / "t.tar", [("a.txt", b"text")])
    write_tar(tmp_path / "u.tar", [("b.txt", b"text")])
    both = (tmp_path / "t.tar").read_bytes() + (tmp_path / "u.tar").read_bytes()
    (tmp_path / "t.tar").write_bytes(both)

    first, last = open_source(str(tmp_path / "t.tar"))

    assert first.default_id == "a"
    assert last.ends_file
    assert "joined" in last.message


def test_a_name_in_a_tar_that_is_not_utf_8_costs_its_sample_only(tmp_path: Path):
    with tarfile.open(tmp_path / "t.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for name in ("caf\udce9.png", "b.png"):
            info = tarfile.TarInfo(name)
            info.size = len(image_bytes())
            tar.addfile(info, io.BytesIO(image_bytes()))

    first, last = open_source(str(tmp_path / "t.tar"))

    assert (first.reason, first.ends_file) == ("not_utf8", False)
    assert last.default_id == "b"


def test_a_damaged_page_of_a_parquet_file_is_damage_and_no_outage(tmp_path: Path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"id": ["a"] * 5, "text": ["b"] * 5}), path, compression="snappy")
    data = bytearray(path.read_bytes())
    data[20:60] = b"\xff" * 40
    path.write_bytes(bytes(data))

    (row,) = open_source(str(path))

    assert row.reason == "source_malformed"


def test_a_row_without_an_id_names_the_columns_that_there_are(tmp_path: Path):
    (tmp_path / "t.csv").write_text("ID^text\na^x\n")

    (row,) = open_source(str(tmp_path / "t.csv"))

    with pytest.raises(InputError, match=r"ID\^text") as refused:
        draft_of(row, FieldNames())
    assert refused.value.reason == "missing_id"


def test_a_number_of_too_many_digits_brings_no_remedy_of_python(tmp_path: Path):
    (tmp_path / "t.jsonl").write_text('{"id": ' + "9" * 5000 + "}\n")

    (row,) = open_source(str(tmp_path / "t.jsonl"))

    assert "sys." not in row.message
    assert "digits" in row.message
