"""A file of queries is one immutable set, whole or not there, with its judgements."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import text

from nightshift.producers.query_import import import_queries
from nightshift.producers.sources import FieldNames
from nightshift.schema.errors import (
    ConfigurationError,
    InputError,
    NotFoundError,
    ServiceUnavailableError,
)
from nightshift.schema.trec_ids import to_trec_id
from nightshift.stores.files.blobs import BlobStore
from tests.producers.source_files import write_image, write_jsonl

QUERIES = [{"id": "q1", "text": "a red square"}, {"id": "q2", "text": "a blue circle", "n": 1}]


@pytest.fixture
def queries(tmp_path):
    return str(write_jsonl(tmp_path / "queries.jsonl", QUERIES))


def select(database, statement, **values):
    with database.begin() as connection:
        return connection.execute(text(statement), values).all()


def failures(database, query_set_id, *, fatal=True):
    rows = select(
        database,
        "SELECT subject_kind, subject_id, reason FROM failure "
        "WHERE query_set_id = :q AND fatal = :fatal ORDER BY id",
        q=query_set_id,
        fatal=fatal,
    )
    return {(row.subject_kind, row.subject_id): row.reason for row in rows}


def judgements(database):
    rows = select(
        database,
        "SELECT query_external_id, item_external_id, relevance FROM qrel ORDER BY 1, 2",
    )
    return [tuple(row) for row in rows]


def test_queries_are_kept_in_the_order_of_their_file(database, tmp_path):
    rows = [{"id": f"q{number}", "text": "x"} for number in range(1500, 0, -1)]
    summary = import_queries(database, str(write_jsonl(tmp_path / "night one.jsonl", rows)))

    stored = select(database, "SELECT external_id FROM query ORDER BY id")

    assert (summary.n_queries, summary.failed) == (1500, 0)
    assert [row.external_id for row in stored] == [row["id"] for row in rows]
    assert select(database, "SELECT name, n_queries FROM query_set") == [("night one", 1500)]


def test_the_same_file_twice_is_the_same_set(database, queries, tmp_path):
    first = import_queries(database, queries)
    moved = tmp_path / "elsewhere"
    moved.mkdir()

    repeated = import_queries(database, queries)
    elsewhere = import_queries(database, str(write_jsonl(moved / "queries.jsonl", QUERIES)))

    assert first == repeated == elsewhere
    assert select(database, "SELECT count(*) FROM query")[0][0] == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows[::-1],
        lambda rows: rows[:1],
        lambda rows: [{**rows[0], "text": "other"}, rows[1]],
        lambda rows: [rows[0], {**rows[1], "n": 2}],
        lambda rows: [{**rows[0], "relevant": ["i"]}, rows[1]],
        lambda rows: [*rows, {"id": "q3", "text": ""}],
    ],
    ids=["order", "fewer", "text", "metadata", "judgements", "failures"],
)
def test_any_other_content_is_another_set(database, queries, tmp_path, change):
    first = import_queries(database, queries)
    write_jsonl(tmp_path / "queries.jsonl", change(QUERIES))

    second = import_queries(database, queries)

    assert second.query_set_id != first.query_set_id
    assert len(select(database, "SELECT FROM query_set WHERE name = 'queries'")) == 2


def test_another_name_is_another_set(database, queries):
    first, second = (import_queries(database, queries, name=name) for name in ("one", "other"))

    assert first.query_set_id != second.query_set_id


def test_bad_queries_are_recorded_and_the_rest_goes_through(database, tmp_path):
    rows = [
        QUERIES[0],
        {"id": "q1", "text": "again"},
        {"id": "empty", "text": ""},
        {"id": "gone", "image": "nothing.png"},
        b"{",
        {"text": "no id"},
        {"id": "judged", "text": "x", "relevant": [{"item": 1}]},
    ]
    source = str(write_jsonl(tmp_path / "q.jsonl", rows))

    summary = import_queries(database, source)

    assert (summary.n_queries, summary.failed) == (1, 6)
    assert failures(database, summary.query_set_id) == {
        ("query", "q1"): "duplicate_id",
        ("query", "empty"): "empty_text",
        ("query", "gone"): "image_missing",
        ("line", "q.jsonl:5"): "malformed_line",
        ("line", "q.jsonl:6"): "missing_id",
        ("query", "judged"): "malformed_qrel",
    }
    assert import_queries(database, source) == summary
    assert len(select(database, "SELECT FROM failure")) == 6


def test_a_duplicate_query_is_found_however_far_away(database, tmp_path):
    rows = [{"id": f"q{number}", "text": "x"} for number in range(1200)]
    rows.append({"id": "q0", "text": "y", "relevant": ["i"]})

    summary = import_queries(database, str(write_jsonl(tmp_path / "q.jsonl", rows)))

    assert (summary.n_queries, summary.failed) == (1200, 1)
    assert judgements(database) == []


def test_queries_may_be_images_in_any_format_under_any_name(database, tmp_path):
    write_image(tmp_path / "a.png")
    (tmp_path / "q.csv").write_text("number,photo\n1,a.png\n")

    summary = import_queries(
        database, str(tmp_path / "q.csv"), mapping=FieldNames(id="number", image=("photo",))
    )

    (row,) = select(database, "SELECT * FROM query")
    assert (summary.n_queries, row.external_id) == (1, "1")
    assert row.image_hash is not None
    assert row.text_hash is None


def test_a_file_without_a_good_query_is_refused_and_its_reasons_are_kept(database, tmp_path):
    source = str(write_jsonl(tmp_path / "q.jsonl", [{"id": "a", "text": ""}]))

    with pytest.raises(InputError, match="the text is empty") as caught:
        import_queries(database, source)

    assert caught.value.reason == "no_queries"
    assert [row.reason for row in select(database, "SELECT reason FROM failure")] == ["empty_text"]


def test_a_reading_that_is_stopped_leaves_nothing(database, tmp_path):
    """The place for images is a file here, as a full disk would be: none can be kept."""
    pq.write_table(
        pa.table({"id": ["a", "b"], "text": ["x", None], "image": [None, b"png"]}),
        tmp_path / "q.parquet",
    )
    (tmp_path / "blobs").touch()

    with pytest.raises(ServiceUnavailableError):
        import_queries(
            database,
            str(tmp_path / "q.parquet"),
            verify="never",
            blobs=BlobStore(tmp_path / "blobs"),
        )

    assert select(database, "SELECT FROM query_set") == []


# --- judgements ----------------------------------------------------------------------------------


def test_judgements_come_with_the_queries_and_are_no_metadata(database, tmp_path):
    rows = [
        {**QUERIES[0], "relevant": ["i1", 2, "i1"], "n": 1},
        {**QUERIES[1], "relevant": "i3"},
        {"id": "q3", "text": "x", "relevant": None},
    ]

    import_queries(database, str(write_jsonl(tmp_path / "q.jsonl", rows)))

    assert judgements(database) == [("q1", "2", 1), ("q1", "i1", 1), ("q2", "i3", 1)]
    stored = select(database, "SELECT metadata FROM query ORDER BY id")
    assert [row.metadata for row in stored] == [{"n": 1}, {"n": 1}, {}]


@pytest.mark.parametrize("name", ["qrels.txt", "qrels.tsv.gz", "qrels.jsonl"])
def test_judgements_are_read_from_trec_and_json_lines(database, queries, tmp_path, name):
    if name.endswith("jsonl"):
        rows = [
            {"query": "q1", "item": "i1", "relevance": 2},
            {"query": "q1", "item": 5},
            {"query": "q2", "item": "i1", "relevance": 0},
        ]
        data = "\n".join(map(json.dumps, rows)).encode()
    else:
        data = b"q1 0 i1 2\n\nq1\tQ0\t5\t1\r\nq2 0 i1 0\n"
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)

    summary = import_queries(database, queries, qrels=str(tmp_path / name))

    assert summary.failed == 0
    assert judgements(database) == [("q1", "5", 1), ("q1", "i1", 2), ("q2", "i1", 0)]


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("query-id\tcorpus-id\tscore\nq1\ti1\t2\nq2\ti 1\t1.0\nq2\ti3\t0.5\n", "beir.tsv"),
        ('\ufeffquery-id\tcorpus-id\tscore\r\nq1\t"i1"\t2.0\r\nq2\ti 1\t1\r\n\tx\t1', "t.tsv"),
        ("q1 0 i1 2.0\nq2 Q0 i%201 1.0\nq2 0 i3 1.5\n", "qrels.txt"),
        ("q1\t0\ti1\t2\nq2\t0\ti%201\t1\nq2 0 i3 nan\n", "qrels"),
        (
            '{"query":"q1","item":"i1","relevance":2.0}\n{"query":"q2","item":"i 1"}\n{"item":1}',
            "q.jsonl",
        ),
    ],
)
def test_judgements_of_every_form_are_taken_and_halves_refused(
    database, queries, tmp_path, content, name
):
    (tmp_path / name).write_text(content, newline="")

    summary = import_queries(database, queries, qrels=str(tmp_path / name))

    assert judgements(database) == [("q1", "i1", 2), ("q2", "i 1", 1)]
    assert summary.reasons == {"malformed_qrel": 1}


def test_a_file_of_judgements_made_from_our_export_names_our_items(database, queries, tmp_path):
    ids = ["a b", "a%20b", "a%2520b", "\u202ex", "50%", "Caf%C3%A9"]
    lines = "".join(f"q1 0 {to_trec_id(item)} 1\n" for item in ids)
    (tmp_path / "made").write_text(lines)

    import_queries(database, queries, qrels=str(tmp_path / "made"))

    assert {item for _, item, _ in judgements(database)} == set(ids)


def test_bad_judgements_are_recorded_and_foreign_ones_are_noted(database, queries, tmp_path):
    (tmp_path / "qrels").write_bytes(
        b"q1 0 i1 1\nq1 0 i1 0\nq1 0 i2\nq1 0 i3 high\nq1 0 i4 99999\n\xff 0 i5 1\n"
        b"q\0 0 i6 1\nq1 0 " + b"x" * 3000 + b" 1\nother 0 i7 1\n"
    )

    summary = import_queries(database, queries, qrels=str(tmp_path / "qrels"))

    assert judgements(database) == [("q1", "i1", 1)]
    assert summary.failed == 6
    assert set(failures(database, summary.query_set_id).values()) == {"malformed_qrel"}
    notices = failures(database, summary.query_set_id, fatal=False)
    assert list(notices.values()) == ["unknown_query"]


@pytest.mark.parametrize(
    ("file", "qrels", "error"),
    [
        ("nothing.jsonl", None, NotFoundError),
        ("queries.jsonl", "nothing.txt", NotFoundError),
        ("queries.jsonl", ".", NotFoundError),
        ("queries.doc", None, ConfigurationError),
    ],
)
def test_files_that_are_not_there_are_refused_at_once(
    database, queries, tmp_path, file, qrels, error
):
    (tmp_path / "queries.doc").touch()

    with pytest.raises(error):
        import_queries(
            database, str(tmp_path / file), qrels=None if qrels is None else str(tmp_path / qrels)
        )


def test_what_nobody_reads_beside_the_queries_is_named(database, tmp_path):
    write_jsonl(tmp_path / "q.jsonl", [{"id": "a", "text": "x"}])
    (tmp_path / "more.json").touch()

    summary = import_queries(database, str(tmp_path))

    assert "more.json" in summary.left_out
    assert summary.reasons == {}
    assert failures(database, summary.query_set_id, fatal=False) == {("line", ""): "left_out"}
