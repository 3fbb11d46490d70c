"""Hostile rows, cells and members in any order: taken or with a reason, in bounded memory."""

import gzip
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nightshift.producers.row_checks import RejectedRow, RowChecker
from nightshift.producers.sources import FieldNames, SkippedFiles, open_source
from nightshift.schema.states import SubjectKind
from nightshift.stores.catalog.catalogs import CheckedRecord
from nightshift.stores.files.blobs import BlobStore
from nightshift.stores.files.roots import ImageRoots
from tests.producers.source_files import image_bytes

GOOD = {"id": "good", "text": "fine"}

odd_texts = st.sampled_from([
    "", " ", "\0", "\ud800", "\ufeff", "a" * 3000, "\x1b[2J", "../x", "/etc/passwd", "file:///%00",
    "file:///a%20b", "data:", "data:image/png;base64,!", "data:,", "http://[", "https://u:p@h/x",
    "tar://x?offset=" + "9" * 5000 + "&size=1::y", "tar://x?offset=0&size=9223372036854775806::y",
    "C:\\x", "//h.example/x", "s3://", "%", "=1+1", "A" * 200, "iVBORw0KGgo" + "A" * 100, "x\ny",
])  # fmt: skip
odd_numbers = st.sampled_from([0, -1, 2**63, -(2**70), 10**400, 1.5, 1e308])
odd_cells = st.recursive(
    st.none() | st.booleans() | odd_numbers | odd_texts,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["bytes", "path", "text", "image", "\0", "x"]), inner)
    ),
    max_leaves=6,
)
odd_rows = st.dictionaries(
    st.sampled_from(["id", "text", "image", "parts", "m", "\0", "\ud800"]), odd_cells, max_size=5
)
odd_lines = st.sampled_from([
    b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"\x00" * 50, b'{"id": NaN}', b"[" * 5000,
    b'{"id": ' + b"9" * 5000 + b"}", b'{"id": "a", "id": "b"}', b'{"n": 1e999, "id": "n"}',
    b'{"id": "\\ud800", "text": "x"}', b'{"id": "z", "text": "\\u0000"}', b'"unclosed,', b"a,b,c,d",
    b"\r", b'a"b"c', b"\xef\xbb\xbf", b'{"' + b"k" * 70000 + b'": 1}', b"x" * 100_000, b'"";"',
])  # fmt: skip
members = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "1.txt",
                "1.json",
                "1.png",
                "2.png",
                "2.heic",
                "2.img",
                "3.cls",
                "/abs.txt",
                "../up.png",
                "._x.png",
                "noext",
                "a" * 300 + ".txt",
                "d/",
                "\ud800.txt",
                "1.jpg.txt",
                ".",
                "é.png",
            ]
        ),
        st.sampled_from(
            [
                b"",
                b"text",
                b"\xff\xff",
                b"\0" * 600,
                b"{",
                b'{"a": 1}',
                b'{"text": 5, "image": "x"}',
                image_bytes(),
                image_bytes()[:40],
                b"II*\0" + b"\xff" * 60,
                b"\xff\xfea\0",
            ]
        ),
        st.sampled_from([tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE]),
    ),
    max_size=6,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


def every_row_has_an_outcome(source: Path) -> list[CheckedRecord | RejectedRow]:
    checker = RowChecker(
        names=FieldNames(),
        kind=SubjectKind.ITEM,
        blobs=BlobStore(source.parent / "blobs"),
        roots=ImageRoots([str(source.parent)]),
    )
    outcomes = list(checker.records(open_source(str(source), SkippedFiles())))
    for outcome in outcomes:
        if isinstance(outcome, RejectedRow):
            assert outcome.failure.reason != "row_malformed", outcome.failure.message
            assert outcome.failure.message
        else:
            outcome.metadata.encode()
            assert "\0" not in outcome.metadata + outcome.external_id
            json.loads(outcome.metadata)
    return outcomes


quick = settings(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


@quick
@given(st.lists(odd_rows.map(lambda row: json.dumps(row).encode()) | odd_lines, max_size=6))
def test_any_json_lines_are_taken_or_have_a_reason(folder: Path, lines: list[bytes]):
    (folder / "t.jsonl").write_bytes(b"\n".join([*lines, json.dumps(GOOD).encode()]) + b"\n")

    outcomes = every_row_has_an_outcome(folder / "t.jsonl")

    assert len(outcomes) >= 1


@quick
@given(st.lists(odd_lines | odd_texts.map(lambda t: t.encode(errors="replace")), max_size=6))
@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
def test_any_csv_is_taken_or_has_a_reason(folder: Path, name: str, lines: list[bytes]):
    (folder / name).write_bytes(b"\n".join([b"id,text,image", *lines]))

    every_row_has_an_outcome(folder / name)


@quick
@given(
    # Parquet writes seconds as milliseconds: larger numbers of them would not fit.
    st.lists(st.tuples(odd_rows, st.integers(-(2**53), 2**53)), min_size=1, max_size=5),
    st.sampled_from(["s", "ms", "us", "ns"]),
    st.sampled_from([None, "UTC", "Mars/Olympus", "+99:99"]),
)
def test_any_parquet_file_is_taken_or_has_a_reason(
    folder: Path, rows: list, unit: str, zone: str | None
):
    texts = [json.dumps(row) for row, _ in rows]
    times = pa.array([time for _, time in rows], pa.timestamp(unit, zone))
    columns = {
        "id": [f"i{at}" for at in range(len(rows))],
        "text": texts,
        "at": times,
        "nested": pa.StructArray.from_arrays([times, times], ["a", "b"]),
        "image": pa.array(
            [{"bytes": text.encode(), "path": None} if at % 2 else None
             for at, text in enumerate(texts)],
            pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        ),
    }  # fmt: skip
    pq.write_table(pa.table(columns), folder / "t.parquet")

    outcomes = every_row_has_an_outcome(folder / "t.parquet")

    assert len(outcomes) == len(rows)
    assert isinstance(outcomes[0], CheckedRecord)


@quick
@given(members)
def test_any_tar_is_taken_or_has_a_reason(folder: Path, members: list):
    with tarfile.open(folder / "t.tar", "w", errors="surrogateescape") as tar:
        for name, data, kind in members:
            info = tarfile.TarInfo(name.encode(errors="replace").decode())
            info.type, info.linkname = kind, "1.png"
            info.size = len(data) if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(data))

    every_row_has_an_outcome(folder / "t.tar")


@quick
@given(st.integers(0, 4000), st.binary(min_size=1, max_size=20), st.sampled_from(range(4)))
def test_damage_anywhere_in_a_file_ends_no_import(folder: Path, at: int, junk: bytes, kind: int):
    names = ["d.tar", "d.parquet", "d.jsonl.gz", "d.csv"]
    path = folder / names[kind]
    if kind == 0:
        with tarfile.open(path, "w") as tar:
            for name in ("1.txt", "1.png", "2.txt"):
                info = tarfile.TarInfo(name)
                info.size = 8
                tar.addfile(info, io.BytesIO(b"12345678"))
    elif kind == 1:
        pq.write_table(pa.table({"id": list("abcdef") * 9, "m": [{"x": [1.5]}] * 54}), path)
    elif kind == 2:
        path.write_bytes(
            gzip.compress(b"".join(b'{"id": "%d", "text": "x"}\n' % n for n in range(99)))
        )
    else:
        path.write_bytes(b"id,text\n" + b'a,"x, y"\n' * 99)
    data = bytearray(path.read_bytes())
    at %= len(data)
    data[at : at + len(junk)] = junk
    path.write_bytes(data)

    every_row_has_an_outcome(path)


# --- small files that unpack to much -----------------------------------------------------------


def sparse_tar(path: Path) -> None:
    """A member of 8 GB in 1 KB, as GNU tar writes it with --sparse."""
    info = tarfile.TarInfo("1.png")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 0
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"%011o\0" % (8 * 2**30)
    header[386:410] = b"%011o\0%011o\0" % (8 * 2**30, 0)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(bytes(header) + bytes(1024))


def long_name_tar(path: Path) -> None:
    """A name of 8 GB, in a file with a hole."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 8 * 2**30
    with path.open("wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(8 * 2**30 + 4096)


def json_lists(path: Path) -> None:
    with gzip.open(path, "wb", 1) as file:
        file.write(b'{"id": "a", "text": "x", "m": [' + b"[]," * (8 * 2**20) + b"[]]}\n")


def endless_line(path: Path) -> None:
    with gzip.open(path, "wb", 1) as file:
        for _ in range(80):
            file.write(b"x" * 2**20)


def _parquet(path: Path, column: pa.Array, **options: object) -> None:
    n = len(column)
    table = pa.table({"id": [str(at) for at in range(n)], "text": ["t"] * n, "m": column})
    pq.write_table(table, path, compression="zstd", **options)


def _repeated(text: str, times: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(
        pa.repeat(pa.scalar(0, pa.int32()), times), pa.array([text])
    )


def dictionary(path: Path) -> None:
    _parquet(path, _repeated("x" * (30 * 2**20), 8))


def dictionary_in_a_list(path: Path) -> None:
    offsets = pa.array([0, 20_000], pa.int32())
    _parquet(path, pa.ListArray.from_arrays(offsets, _repeated("ab" * (300 * 2**10), 20_000)))


def runs_in_a_list(path: Path) -> None:
    offsets = pa.array([0, 17_000_000], pa.int32())
    _parquet(path, pa.ListArray.from_arrays(offsets, pa.repeat(7, 17_000_000)))


def packed_text(path: Path) -> None:
    _parquet(path, pa.array(["x" * (80 * 2**20)]), use_dictionary=False)


BOMBS = {
    "s.tar": sparse_tar,
    "l.tar": long_name_tar,
    "m.jsonl.gz": json_lists,
    "e.csv.gz": endless_line,
    "d.parquet": dictionary,
    "n.parquet": dictionary_in_a_list,
    "r.parquet": runs_in_a_list,
    "t.parquet": packed_text,
}

_PEAK = """
import resource, sys
import pyarrow.parquet
from nightshift.producers.sources import BadRow, FieldNames, draft_of, open_source
from nightshift.schema.errors import InputError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for row in open_source(sys.argv[1]):
    if isinstance(row, BadRow):
        print("reason", row.reason)
        continue
    try:
        print("taken", draft_of(row, FieldNames()).id)
    except InputError as error:
        print("reason", error.reason)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_source_takes_little_memory(tmp_path: Path, name: str):
    BOMBS[name](tmp_path / name)
    command = [sys.executable, "-c", _PEAK, str(tmp_path / name)]

    done = subprocess.run(command, check=True, capture_output=True, text=True)

    *outcomes, peak_mib = done.stdout.split("\n")[:-1]
    assert outcomes
    assert all(line.startswith("reason") for line in outcomes)
    assert int(peak_mib) < 400
