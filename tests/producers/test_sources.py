"""Every format becomes the same rows; what cannot be read is named and harms no neighbour."""

import gzip
import json
import os
import tracemalloc
from datetime import UTC, datetime
from decimal import Decimal

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshift.producers.sources import BadRow, FieldNames, RawRow, draft_of, open_source
from nightshift.producers.sources.lines import MAX_LINE_BYTES
from nightshift.schema.errors import ConfigurationError, InputError, NotFoundError
from nightshift.schema.records import ImagePart, TextPart
from nightshift.stores.files.files import open_file
from tests.producers.source_files import (
    image_bytes,
    tar_bytes,
    write_image,
    write_jsonl,
    write_tar,
)

TWO = [{"id": "a", "text": "one"}, {"id": "b", "text": "two"}]


def read(source):
    return list(open_source(str(source)))


def fields(source):
    return [dict(row.fields) for row in read(source)]


def reasons(rows):
    return [row.reason if isinstance(row, BadRow) else "good" for row in rows]


def draft(fields, *, folder="/data", default_id=None, names=()):
    row = RawRow(position="f:1", fields=fields, folder=folder, default_id=default_id)
    return draft_of(row, FieldNames.parse(tuple(names)))


def reason(fields, **options):
    with pytest.raises(InputError) as caught:
        draft(fields, **options)
    assert caught.value.message
    return caught.value.reason


# --- folders -----------------------------------------------------------------------------------


def test_a_folder_gives_its_images_with_the_captions_beside_them(tmp_path):
    write_image(tmp_path / "b.jpg")
    write_image(tmp_path / "a" / "c.PNG")
    (tmp_path / "b.txt").write_text("a red square\n")

    first, second = read(tmp_path)

    assert (first.default_id, first.fields) == (
        "b",
        {"image": f"{tmp_path}/b.jpg", "text": "a red square"},
    )
    assert (second.default_id, second.fields) == ("a/c", {"image": f"{tmp_path}/a/c.PNG"})


def test_hidden_names_and_links_to_folders_are_left_out(tmp_path):
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "._a.png")
    write_image(tmp_path / ".cache" / "b.png")
    (tmp_path / "loop").symlink_to(tmp_path)

    assert [row.default_id for row in read(tmp_path)] == ["a"]


def test_a_folder_without_anything_to_import_says_so(tmp_path):
    (tmp_path / "notes.doc").write_text("nothing")

    (row,) = read(tmp_path)

    assert (row.reason, row.ends_file) == ("empty_source", True)


def test_a_caption_that_is_not_utf8_fails_its_image_only(tmp_path):
    for name in "ab":
        write_image(tmp_path / f"{name}.png")
    (tmp_path / "a.txt").write_bytes("Straße".encode("latin-1"))

    assert reasons(read(tmp_path)) == ["not_utf8", "good"]


def test_metadata_jsonl_describes_the_images_of_its_folder(tmp_path):
    write_image(tmp_path / "x" / "1.png")
    write_jsonl(tmp_path / "metadata.jsonl", [{"file_name": "x/1.png", "text": "red", "n": 5}])

    (row,) = read(tmp_path)

    assert row.default_id == "x/1"
    assert row.fields == {"image": "x/1.png", "text": "red", "n": 5}


# --- lines -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.jsonl", "t.ndjson", "t.jsonl.gz"])
def test_json_lines_are_read_plain_or_packed(tmp_path, name):
    data = b"\xef\xbb\xbf" + b"\n\n".join(json.dumps(row).encode() for row in TWO)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)

    rows = read(tmp_path / name)

    assert [row.fields for row in rows] == TWO
    assert [row.position for row in rows] == [f"{name}:1", f"{name}:3"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"id": "x"', "malformed_line"),
        (b'["x"]', "malformed_line"),
        (b'{"id": NaN}', "malformed_line"),
        (b'{"id": ' + b"1" * 5000 + b"}", "malformed_line"),
        (b"[" * 100_000, "malformed_line"),
        (b'{"id": "\xff"}', "not_utf8"),
        (b'{"id": "' + b"x" * MAX_LINE_BYTES + b'"}', "line_too_long"),
    ],
    ids=["cut", "list", "nan", "huge number", "deep", "latin-1", "endless"],
)
def test_a_bad_json_line_is_named_and_its_neighbours_are_read(tmp_path, line, expected):
    path = write_jsonl(tmp_path / "t.jsonl", [TWO[0], line, TWO[1]])

    rows = read(path)

    assert reasons(rows) == ["good", expected, "good"]
    assert rows[1].position == "t.jsonl:2"
    assert not rows[1].ends_file


@pytest.mark.parametrize(("name", "sign"), [("t.csv", ","), ("t.tsv", "\t"), ("t.csv.gz", ",")])
def test_delimited_files_are_read_with_quotes_and_line_breaks(tmp_path, name, sign):
    text = f'\ufeffid{sign} text\r\na{sign}"one, ""two""\nthree"\r\n\r\nb{sign}\r\n'
    data = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)

    assert fields(tmp_path / name) == [
        {"id": "a", "text": 'one, "two"\nthree'},
        {"id": "b", "text": ""},
    ]


def test_bad_csv_records_are_named_and_their_neighbours_are_read(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b'id,text\na,one\nb\nc,1,2\nd,"x"y\ne,\xe9\nf,"two"\ng,"open\n')

    rows = read(path)

    assert reasons(rows) == [
        "good",
        "ragged_row",
        "ragged_row",
        "malformed_line",
        "good",
        "good",
        "malformed_line",
    ]
    with pytest.raises(InputError) as caught:
        draft_of(rows[4], FieldNames())
    assert caught.value.reason == "not_utf8"


@pytest.mark.parametrize(
    ("lines", "good", "bad"),
    [
        # Closed by a quote of another line, which is read again.
        (['3,"12 inch', "4,four", '5,x "y" z', "6,six"], [4, 5, 6], [2]),
        (['3,"12 inch', '5,x "y" z', "6,six"], [5, 6], [2]),
        # Never closed.
        (["3,three", '4,"four', "5,five", "6,six"], [3, 5, 6], [3]),
        (['3,"three', "", "5,five"], [5], [2]),
        (['3,"three'], [], [2]),
        # Two of them.
        (['3,"12 inch', "4,four", '5,"15 inch', "6,six"], [4, 6], [2, 4]),
        # Where the last line opens quotes of its own that end later.
        (['3,"12 inch', '4,"two', 'lines"', "5,five"], [4, 5], [2]),
        # Lines that are no rows by themselves may hold anything: each is named.
        (['3,"a text of', "several lines, with, commas", "and no end"], [], [2, 3, 4]),
        (['3,"a text of', "several lines, with, commas", 'an "odd" end', "4,four"], [4], [2, 3, 4]),
        (['3,"a text of', 'two lines",too many', "4,four"], [4], [2, 3]),
        # Nothing is wrong here.
        (['3,"two', 'lines, one ""row"""', "4,four"], [3, 4], []),
    ],
)
def test_a_stray_quote_loses_no_line_without_a_message(tmp_path, lines, good, bad):
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["id,text", *lines]) + "\n")

    rows = read(path)

    assert [int(row.fields["id"]) for row in rows if isinstance(row, RawRow)] == good
    assert [int(row.position.split(":")[1]) for row in rows if isinstance(row, BadRow)] == bad


def test_a_stray_quote_is_mended_however_many_lines_follow(tmp_path):
    path = tmp_path / "t.csv"
    numbers = range(50_000)
    path.write_text('id,text\n1,"open\n' + "".join(f"{number},a text\n" for number in numbers))

    first, *rest = read(path)

    assert isinstance(first, BadRow)
    assert [int(row.fields["id"]) for row in rest] == list(numbers)


def test_a_quote_that_is_never_closed_needs_little_memory(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('id,text\n1,"open\n' + "x\n" * 150_000)

    tracemalloc.start()
    try:
        rows = open_source(str(path))
        n_bad = sum(isinstance(row, BadRow) for row in rows)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert n_bad == 150_001
    assert peak < 60 * 2**20


def test_a_csv_file_whose_header_is_unreadable_is_not_read(tmp_path):
    (tmp_path / "t.csv").write_text('id,"text\n1,a\n2,b\n')

    (row,) = read(tmp_path / "t.csv")

    assert (row.reason, row.ends_file) == ("malformed_line", True)


def test_an_endless_csv_line_is_named_and_its_neighbours_are_read(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"id,text\na,one\n" + b"x" * (MAX_LINE_BYTES + 1) + b"\nb,two\n")

    assert sorted(reasons(read(path))) == ["good", "good", "line_too_long"]


def test_two_columns_of_one_name_end_a_csv_file(tmp_path):
    (tmp_path / "t.csv").write_text("id,text,text\na,b,c\n")

    (row,) = read(tmp_path / "t.csv")

    assert (row.reason, row.ends_file) == ("malformed_header", True)


# --- parquet -----------------------------------------------------------------------------------


def test_parquet_rows_come_with_their_types(tmp_path):
    table = pa.table(
        {
            "id": [1, 2],
            "text": [["a", "b"], None],
            "image": pa.array([{"bytes": b"png", "path": None}, {"bytes": None, "path": "x.png"}]),
            "price": [Decimal("1.50"), None],
            "at": [datetime(2026, 1, 2, tzinfo=UTC)] * 2,
            "score": [float("nan"), 0.5],
            "vector": [b"\x00\x01", None],
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")

    first, second = [draft_of(row, FieldNames()) for row in read(tmp_path / "t.parquet")]

    assert (first.id, first.parts[0].data) == ("1", b"png")
    assert first.parts[1:] == (TextPart(text="a"), TextPart(text="b"))
    assert second.parts == (ImagePart(uri=f"{tmp_path}/x.png"),)
    metadata = json.loads(first.metadata)
    assert metadata["price"] == "1.50"
    assert metadata["at"].startswith("2026-01-02")
    assert metadata["score"] is None
    assert metadata["vector"] is None


def test_a_parquet_file_is_read_a_few_rows_at_a_time(tmp_path):
    pq.write_table(pa.table({"id": list(range(10_000))}), tmp_path / "t.parquet")

    rows = open_source(str(tmp_path / "t.parquet"))

    assert next(rows).fields == {"id": 0}
    assert sum(1 for _ in rows) == 9_999


def test_a_parquet_text_that_is_not_utf8_fails_its_row_only(tmp_path):
    raw = pa.array([b"good", b"\xff\xfe", b"good"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    pq.write_table(pa.table({"id": ["a", "b", "c"], "text": text}), tmp_path / "t.parquet")

    assert reasons(read(tmp_path / "t.parquet")) == ["good", "not_utf8", "good"]


# --- tars --------------------------------------------------------------------------------------


def test_a_tar_gives_its_samples_by_key(tmp_path):
    path = write_tar(
        tmp_path / "s.tar",
        [
            ("./x/1.jpg", image_bytes(form="JPEG")),
            ("./x/1.txt", b"a red square\n"),
            ("./x/1.json", b'{"width": 8, "text": "unused"}'),
            ("./x/1.cls", b"3"),
            ("x/2.front.png", image_bytes("blue")),
            ("x/2.back.png", image_bytes("green")),
            ("x/._3.png", b"resource fork"),
        ],
    )

    first, second = read(path)

    assert (first.default_id, second.default_id) == ("x/1", "x/2")
    assert first.fields["text"] == ["a red square"]
    assert first.fields["width"] == 8
    assert [image.data for image in second.fields["image"]] == [
        image_bytes("blue"),
        image_bytes("green"),
    ]


@pytest.mark.parametrize("where", ["local", "memory"])
def test_an_image_in_a_tar_is_found_again_by_its_address(tmp_path, where):
    name = "ü & ?#::.png"
    data = tar_bytes([("long/" * 60 + name, image_bytes("blue")), ("z.png", image_bytes())])
    source = f"{tmp_path}/s.tar" if where == "local" else "memory://found/s.tar"
    with fsspec.open(source, "wb") as file:
        file.write(data)

    images = [image for row in read(source) for image in row.fields["image"]]

    for image in images:
        with open_file(image.address) as stream:
            assert stream.read() == image.data
    assert len(images) == 2


def test_a_bad_sample_of_a_tar_is_named_and_its_neighbours_are_read(tmp_path):
    path = write_tar(
        tmp_path / "s.tar",
        [
            ("1.json", b"{"),
            ("1.txt", b"one"),
            ("2.txt", b"\xff"),
            ("3.txt", b"three"),
        ],
    )

    assert reasons(read(path)) == ["malformed_line", "not_utf8", "good"]


# --- many files, and files that break off --------------------------------------------------------


def test_a_folder_of_data_files_is_read_in_the_order_of_their_names(tmp_path):
    write_jsonl(tmp_path / "2.jsonl", [TWO[1]])
    (tmp_path / "1.csv").write_text("id,text\na,one\n")
    write_image(tmp_path / "picture.png")

    assert fields(tmp_path) == TWO


def test_a_pattern_names_files_below_many_folders(tmp_path):
    for name in "ba":
        (tmp_path / name).mkdir()
        write_jsonl(tmp_path / name / "t.jsonl", [{"id": name, "text": "x"}])
        write_image(tmp_path / name / "1.png")
    (tmp_path / "a" / "1.txt").write_text("one")

    assert [row["id"] for row in fields(tmp_path / "*" / "*.jsonl")] == ["a", "b"]
    images = read(tmp_path / "**" / "*.png")
    assert [(row.default_id, row.fields.get("text")) for row in images] == [
        ("a/1", "one"),
        ("b/1", None),
    ]


def test_a_name_with_brackets_is_a_file_where_there_is_one(tmp_path):
    assert fields(write_jsonl(tmp_path / "t[1].jsonl", TWO)) == TWO


def test_any_filesystem_may_hold_a_source():
    with fsspec.open("memory://shop/t.jsonl", "wb") as file:
        file.write(json.dumps({"id": "a", "image": "img/a.png"}).encode())

    (row,) = read("memory://shop/t.jsonl")

    assert draft_of(row, FieldNames()).parts == (ImagePart(uri="memory:///shop/img/a.png"),)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("nothing.jsonl", NotFoundError),
        ("*.jsonl", NotFoundError),
        ("notes.doc", ConfigurationError),
        ("s.tar.gz", ConfigurationError),
    ],
)
def test_a_source_that_cannot_be_read_at_all_is_refused_at_once(tmp_path, source, error):
    (tmp_path / "notes.doc").touch()
    (tmp_path / "s.tar.gz").touch()

    with pytest.raises(error):
        open_source(str(tmp_path / source))


@pytest.mark.parametrize("name", ["1.jsonl.gz", "1.parquet", "1.tar"])
@pytest.mark.parametrize("damage", ["cut", "other"])
def test_a_file_that_breaks_off_is_named_and_the_next_one_is_read(tmp_path, name, damage):
    complete = tmp_path / name
    if name.endswith("gz"):
        complete.write_bytes(gzip.compress(os.urandom(50_000).hex().encode()))
    elif name.endswith("tar"):
        write_tar(complete, [("1.txt", b"one"), ("2.txt", b"x" * 50_000)])
    else:
        pq.write_table(pa.table({"id": [str(n) for n in range(9999)]}), complete)
    data = complete.read_bytes()
    complete.write_bytes(data[: len(data) // 2] if damage == "cut" else b"something else" * 99)
    write_jsonl(tmp_path / "2.jsonl", TWO)

    rows = read(tmp_path)

    assert reasons(rows)[-3:] == ["source_malformed", "good", "good"]
    assert rows[-3].ends_file


def test_a_file_that_goes_away_is_named_and_the_next_one_is_read(tmp_path):
    for number in "123":
        write_jsonl(tmp_path / f"{number}.jsonl", [{"id": number, "text": "x"}])
    rows = open_source(str(tmp_path))
    recorded = [next(rows)]
    (tmp_path / "2.jsonl").unlink()

    recorded += rows

    assert reasons(recorded) == ["good", "file_missing", "good"]
    assert recorded[1].ends_file


# --- fields ------------------------------------------------------------------------------------


def test_images_come_before_texts_and_parts_keep_their_order():
    row = {"id": "a", "text": ["t1", "t2"], "image": ["/i1", "https://h/i2"], "n": 1}
    parts = [{"text": "t"}, {"image": "i.png", "text": None}, {"text": "u"}]

    assert draft(row).parts == (
        ImagePart(uri="/i1"),
        ImagePart(uri="https://h/i2"),
        TextPart(text="t1"),
        TextPart(text="t2"),
    )
    assert draft({"id": "a", "parts": parts}).parts == (
        TextPart(text="t"),
        ImagePart(uri="/data/i.png"),
        TextPart(text="u"),
    )


@pytest.mark.parametrize(
    ("folder", "path", "address"),
    [
        ("/data", "a.png", "/data/a.png"),
        ("/data", "a::b.png", "/data/a::b.png"),
        ("/data", "../x/./a.png", "/x/a.png"),
        ("/data", "/b/a.png", "/b/a.png"),
        ("/data", "file:///b/a.png", "/b/a.png"),
        ("/data", "s3://bucket/a.png", "s3://bucket/a.png"),
        ("s3://bucket/x", "y/a.png", "s3://bucket/x/y/a.png"),
    ],
)
def test_paths_are_relative_to_the_file_and_addresses_are_kept(folder, path, address):
    assert draft({"id": "a", "image": path}, folder=folder).parts == (ImagePart(uri=address),)


def test_fields_are_found_under_other_names_and_the_rest_is_metadata():
    row = {"sku": 7, "title": "a", "body": "b", "text": "seo", "photo": "p.png", "n": [1]}

    drafted = draft(row, names=["id=sku", "text=title", "text=body", "image=photo"])

    assert drafted.id == "7"
    assert drafted.parts == (
        ImagePart(uri="/data/p.png"),
        TextPart(text="a"),
        TextPart(text="b"),
    )
    assert json.loads(drafted.metadata) == {"text": "seo", "n": [1]}


def test_one_field_may_be_both_id_and_image():
    drafted = draft({"photo": "p.png"}, names=["id=photo", "image=photo"])

    assert (drafted.id, drafted.metadata) == ("p.png", "{}")


@pytest.mark.parametrize("pair", ["title", "title=", "caption=title", "=x"])
def test_a_map_that_is_not_understood_is_refused(pair):
    with pytest.raises(ConfigurationError):
        FieldNames.parse((pair,))


def test_two_fields_for_one_id_are_refused():
    with pytest.raises(ConfigurationError):
        FieldNames.parse(("id=a", "id=b"))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"text": "x"}, "missing_id"),
        ({"id": "", "text": "x"}, "missing_id"),
        ({"id": " ", "text": "x"}, "missing_id"),
        ({"id": 1.5, "text": "x"}, "bad_id"),
        ({"id": True, "text": "x"}, "bad_id"),
        ({"id": ["a"], "text": "x"}, "bad_id"),
        ({"id": "x" * 1025, "text": "x"}, "id_too_long"),
        ({"id": "😀" * 400, "text": "x"}, "id_too_long"),
        ({"id": "a\0b", "text": "x"}, "nul_character"),
        ({"id": "\ud800", "text": "x"}, "not_utf8"),
        ({"id": "a"}, "missing_field"),
        ({"id": "a", "title": "x"}, "missing_field"),
        ({"id": "a", "text": None, "image": ""}, "no_content"),
        ({"id": "a", "text": []}, "no_content"),
        ({"id": "a", "text": ""}, "empty_text"),
        ({"id": "a", "text": " \n\u3000"}, "empty_text"),
        ({"id": "a", "text": {"en": "x"}}, "text_not_string"),
        ({"id": "a", "text": [["x"]]}, "text_not_string"),
        ({"id": "a", "text": 5}, "text_not_string"),
        ({"id": "a", "text": "a\0b"}, "nul_character"),
        ({"id": "a", "text": "\udc80"}, "not_utf8"),
        ({"id": "a", "text": "x" * 10_000_000}, "text_too_long"),
        ({"id": "a", "text": "é" * 500_001}, "text_too_long"),
        ({"id": "a", "image": 5}, "image_not_path"),
        ({"id": "a", "image": {"url": "x"}}, "image_not_path"),
        ({"id": "a", "image": {"bytes": None, "path": None}}, "no_content"),
        ({"id": "a", "image": "a\0.png"}, "nul_character"),
        ({"id": "a", "parts": "x"}, "malformed_parts"),
        ({"id": "a", "parts": [{"text": "x", "image": "y"}]}, "malformed_parts"),
        ({"id": "a", "parts": ["x"]}, "malformed_parts"),
        ({"id": "a", "parts": []}, "no_content"),
        ({"id": "a", "text": "x", "n": "\0"}, "nul_character"),
        ({"id": "a", "text": "x", "\0": 1}, "nul_character"),
        ({"id": "a", "text": "x", "n": "\ud800"}, "not_utf8"),
        ({"id": "a", "text": "x", "n": "x" * 1_000_001}, "metadata_too_long"),
    ],
)
def test_a_bad_row_has_a_reason(row, expected):
    assert reason(row) == expected


def test_metadata_may_be_nested_but_not_without_end():
    nested = {"n": 1}
    for _ in range(200):
        nested = {"n": nested}

    assert reason({"id": "a", "text": "x", "n": nested}) == "metadata_too_deep"


def test_a_named_field_must_be_there_in_every_row():
    row = {"id": "a", "image": "a.png"}

    assert reason(row, names=["text=titel"]) == "missing_field"
    assert draft({**row, "titel": None}, names=["text=titel"]).parts


@pytest.mark.parametrize(
    "identity",
    ["x" * 300, "😀" * 300, "'\"{}[]\\%", "a b\tc", "../../etc/passwd", "' OR 1=1 --", "\x07"],
)
def test_an_unusual_id_is_kept_as_it_is(identity):
    assert draft({"id": identity, "text": "x"}).id == identity


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
rows = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(["id", "text", "image", "parts", "x", "y\0", "\ud800"], json_values),
)


@given(rows)
def test_any_row_becomes_a_record_or_has_a_reason(row):
    try:
        drafted = draft(row)
    except InputError as error:
        refused = error
    else:
        assert drafted.id.strip()
        assert drafted.parts
        assert isinstance(json.loads(drafted.metadata), dict)
        assert "\0" not in drafted.metadata
        drafted.metadata.encode()
        return
    assert refused.reason
    assert refused.message
