"""Exports hold every ranking row, in order, in formats that other programs read."""

import csv
import io
import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from sqlalchemy import text

from nightshift.results.csv_cells import from_csv_cell, to_csv_cell
from nightshift.results.export import COLUMNS, export
from nightshift.results.rankings import open_rankings
from nightshift.schema.errors import ConflictError, NotFoundError
from nightshift.schema.trec_ids import from_trec_id
from tests.results.ranked import LISTS, SCORER, add_large_run, add_reference_run
from tests.stores.ledger_helpers import add_index_run

FINAL = {
    "q1": ["i3", "i2", "i1"],
    "q2": ["i5", "i4", "i6"],
    "q3": ["i7", "i1", "i2"],
    'q,"4"\t': ['i "8", of\tthree', "i1"],
}


def write(database, run_id, file_format, **chosen) -> bytes:
    stream = io.BytesIO()
    with open_rankings(database, run_id, **chosen) as (_, rows):
        export(rows, file_format, stream)
    return stream.getvalue()


def read_jsonl(content: bytes) -> list[dict]:
    return [json.loads(line) for line in content.splitlines()]


def test_rows_come_in_the_order_of_the_queries_and_of_the_final_ranks(database):
    rows = read_jsonl(write(database, add_reference_run(database), "jsonl"))

    assert [(row["query"], row["item"]) for row in rows] == [
        (query, item) for query, items in FINAL.items() for item in items
    ]


def test_a_row_says_what_put_it_there(database):
    run_id = add_reference_run(database)

    first = read_jsonl(write(database, run_id, "jsonl", query="q1"))[0]

    assert first == {
        "run_id": run_id, "query": "q1", "item": "i3", "final_rank": 1, "coarse_rank": 3,
        "coarse_score": 0.7, "margin": 4.0, "probability": pytest.approx(0.98201376),
        "entropy": 0.1, "fired": True, "fired_layer": 7, "tie_group": 1, "tie_size": 1,
        "decided_by": "score", "scorer_fingerprint": SCORER, "relevance": 1,
    }  # fmt: skip


def test_a_tie_that_entropy_decided_is_marked(database):
    first, second, third = read_jsonl(
        write(database, add_reference_run(database), "jsonl", query="q2")
    )

    assert (first["decided_by"], first["tie_size"], first["tie_group"]) == ("entropy", 2, 1)
    assert (second["decided_by"], second["tie_size"], second["tie_group"]) == ("entropy", 2, 1)
    assert (third["decided_by"], third["tie_size"], third["tie_group"]) == ("score", 1, 2)


def test_a_pair_that_failed_has_no_score_and_comes_last(database):
    last = read_jsonl(write(database, add_reference_run(database), "jsonl", query="q3"))[-1]

    assert last["item"] == "i2"
    assert last["margin"] is last["probability"] is last["fired"] is last["tie_group"] is None
    assert last["decided_by"] == "coarse"


def test_csv_and_parquet_hold_what_jsonl_holds(database):
    run_id = add_reference_run(database)
    rows = read_jsonl(write(database, run_id, "jsonl"))

    from_csv = list(
        csv.DictReader(io.StringIO(write(database, run_id, "csv").decode(), newline=""))
    )
    from_parquet = parquet.read_table(io.BytesIO(write(database, run_id, "parquet"))).to_pylist()

    assert from_csv == [
        {name: "" if row[name] is None else str(row[name]) for name in COLUMNS} for row in rows
    ]
    assert [single(row) for row in from_parquet] == [single(row) for row in rows]


def single(row: dict) -> dict:
    """Postgres and Parquet keep float32; their shortest decimal forms differ."""
    return {name: np.float32(v) if isinstance(v, float) else v for name, v in row.items()}


def test_a_trec_reader_that_sorts_by_score_gets_our_order(database):
    lines = write(database, add_reference_run(database), "trec").decode().splitlines()
    fields = [line.split() for line in lines]

    assert {len(row) for row in fields} == {6}
    for (query, items), encoded in zip(FINAL.items(), ["q1", "q2", "q3", 'q,"4"%09'], strict=True):
        own = [row for row in fields if row[0] == encoded]
        by_score = sorted(own, key=lambda row: float(row[4]), reverse=True)
        assert len({row[4] for row in own}) == len(items)
        assert [row[3] for row in by_score] == [str(rank + 1) for rank in range(len(items))]
        assert len(LISTS[query]) == len(own)


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=cmd|'/C calc'!A0", "'=cmd|'/C calc'!A0"),
        ("+1", "'+1"),
        ("-2+3", "'-2+3"),
        ("@SUM(1+1)", "'@SUM(1+1)"),
        ("\tx", "'\tx"),
        ("\rx", "'\rx"),
        ('  "=1"', "'  \"'=1\""),
        ("\ufeff=1", "'\ufeff=1"),
        ("＝1", "'＝1"),
        ("a;=1", "a;'=1"),
        ("'=1", "''=1"),
        ("a-b, it's 5 - 3 = 2", "a-b, it's 5 - 3 = 2"),
        ("", ""),
    ],
)
def test_no_cell_is_a_formula(text, cell):
    assert to_csv_cell(text) == cell
    assert from_csv_cell(cell) == text


@given(st.text(alphabet="=+-@'\"\t\r\n ,;|a1"))
def test_a_cell_gives_its_text_back(text):
    cell = to_csv_cell(text)

    assert from_csv_cell(cell) == text
    assert not cell.lstrip(' "').startswith(("=", "+", "-", "@"))


def test_hostile_ids_come_back_from_every_format_and_numbers_stay_numbers(database):
    run_id = add_reference_run(database)
    hostile = ["=cmd|'/C calc'!A0", "a b", "a%20b", "tab\tid", "\u202ertl", "a\u00a0b", "-1"]
    with database.begin() as connection:
        for number, name in enumerate(hostile, 1):
            connection.execute(
                text("UPDATE item SET external_id = :name WHERE external_id = :old"),
                {"name": name, "old": f"i{number}"},
            )
    items = [row["item"] for row in read_jsonl(write(database, run_id, "jsonl"))]

    rows = list(csv.DictReader(io.StringIO(write(database, run_id, "csv").decode(), newline="")))
    words = [line.split()[2] for line in write(database, run_id, "trec").decode().splitlines()]

    assert set(hostile) < set(items)
    assert [from_csv_cell(row["item"]) for row in rows] == items
    assert [from_trec_id(word) for word in words] == items
    assert len(set(words)) == len(set(items))
    assert {float(row["margin"]) for row in rows if row["margin"]} >= {-2.0, -0.5}


def test_a_limit_cuts_the_export(database):
    assert len(write(database, add_reference_run(database), "jsonl", limit=2).splitlines()) == 2


def test_a_run_without_rows_gives_an_empty_export_of_every_format(database):
    run_id = add_reference_run(database)

    assert write(database, run_id, "jsonl", query="q5") == b""
    assert write(database, run_id, "trec", query="q5") == b""
    assert write(database, run_id, "csv", query="q5").decode().strip() == ",".join(COLUMNS)
    empty = parquet.read_table(io.BytesIO(write(database, run_id, "parquet", query="q5")))
    assert empty.column_names == list(COLUMNS)
    assert empty.num_rows == 0


def test_an_index_run_has_no_rankings(database):
    run_id = add_index_run(database)

    with pytest.raises(ConflictError, match="builds an index"):
        write(database, run_id, "jsonl")


def test_an_unknown_run_or_query_is_named(database):
    run_id = add_reference_run(database)

    with pytest.raises(NotFoundError, match="no run 99"):
        write(database, 99, "jsonl")
    with pytest.raises(NotFoundError, match="no query 'q9'"):
        write(database, run_id, "jsonl", query="q9")


def test_memory_does_not_grow_with_the_number_of_rows(database):
    run_id = add_large_run(database, n_queries=500, depth=50)
    peaks = {}
    for limit in (6_000, 25_000):
        tracemalloc.start()
        with open_rankings(database, run_id, limit=limit) as (_, rows):
            assert export(rows, "csv", Sink()) == limit
        peaks[limit] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    assert peaks[25_000] < 1.5 * peaks[6_000], peaks


class Sink(io.RawIOBase):
    """Takes everything and keeps nothing."""

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        return len(data)
