"""An import takes what is good, records what is bad, and its counts always add up."""

import json
import os
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from nightshift.cli.main import main
from nightshift.producers.catalog_import import import_catalog, import_rows
from nightshift.producers.row_checks import RowChecker
from nightshift.producers.sources import BadRow, EmbeddedImage, FieldNames, RawRow
from nightshift.schema.errors import ConflictError
from nightshift.schema.states import SubjectKind
from nightshift.stores.catalog.catalogs import begin_import, ensure_catalog
from nightshift.stores.files.blobs import BlobStore
from nightshift.stores.files.images import read_image
from tests.catalog_rows import ITEMS
from tests.producers.source_files import image_bytes, write_image, write_jsonl, write_tar


def select(database, statement, **values):
    with database.begin() as connection:
        return connection.execute(text(statement), values).all()


def items(database, state="live"):
    """Items by id, as (parts, metadata); those that are gone as they were last."""
    rows = select(
        database,
        "SELECT external_id, parts, metadata FROM item JOIN content ON true JOIN item_version v "
        "ON v.item_id = item.id AND v.content_id = content.id WHERE last_revision = (SELECT "
        "max(last_revision) FROM item_version WHERE item_id = item.id) "
        "AND (last_revision = 2147483647) = (:s = 'live')",
        s=state,
    )
    return {row.external_id: (row.parts, row.metadata) for row in rows}


def failures(database, import_id, *, fatal=True):
    """Reasons by subject."""
    rows = select(
        database,
        "SELECT subject_kind, subject_id, reason FROM failure "
        "WHERE import_id = :i AND fatal = :fatal ORDER BY id",
        i=import_id,
        fatal=fatal,
    )
    return {(row.subject_kind, row.subject_id): row.reason for row in rows}


def counts(summary):
    assert summary.accepted + summary.failed + summary.unchanged == summary.read
    return summary.accepted, summary.failed, summary.unchanged


def stored_counts(database, import_id):
    """(accepted, failed, unchanged) as a reader of the database sees them."""
    (row,) = select(database, "SELECT * FROM catalog_import WHERE id = :i", i=import_id)
    assert row.accepted + row.failed + row.unchanged + row.not_applied == row.read
    assert len(failures(database, import_id)) <= row.failed
    return row.accepted, row.failed, row.unchanged


def row(identity, content="x"):
    return RawRow(position=f"rows:{identity}", fields={"id": identity, "text": content}, folder="/")


def run_rows(database, rows, name="shop", **options):
    checker = RowChecker(names=FieldNames(), kind=SubjectKind.ITEM)
    return import_rows(database, name, "rows", rows, checker=checker, **options)


# --- what is new, changed, unchanged, gone -------------------------------------------------------


def test_importing_twice_changes_nothing(database, tmp_path):
    write_image(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("red")

    first = import_catalog(database, "shop", str(tmp_path))
    before = items(database)
    second = import_catalog(database, "shop", str(tmp_path))

    assert counts(first) == (1, 0, 0)
    assert counts(second) == (0, 0, 1)
    assert items(database) == before
    assert stored_counts(database, second.import_id) == (0, 0, 1)


def test_a_change_of_text_image_or_metadata_is_taken(database, tmp_path):
    write_image(tmp_path / "p.png", "red")
    rows = [
        {"id": "text", "text": "old"},
        {"id": "picture", "image": "p.png"},
        {"id": "metadata", "text": "same", "price": 1},
        {"id": "nothing", "text": "same", "price": 1.0, "nested": {"b": [1], "a": None}},
    ]
    source = str(write_jsonl(tmp_path / "t.jsonl", rows))
    import_catalog(database, "shop", source)

    rows[0]["text"], rows[2]["price"] = "new", 2
    rows[3] = dict(reversed(rows[3].items())) | {"price": 1}
    write_image(tmp_path / "p.png", "blue")
    write_jsonl(tmp_path / "t.jsonl", rows)
    summary = import_catalog(database, "shop", source)

    assert counts(summary) == (3, 0, 1)
    assert items(database)["text"][0] == [{"kind": "text", "text": "new"}]
    assert items(database)["metadata"][1] == {"price": 2}


def test_an_image_that_moved_is_the_same_content_at_a_new_address(database, tmp_path):
    write_image(tmp_path / "old" / "a.png")
    import_catalog(database, "shop", str(tmp_path / "old"))
    (before,) = select(database, f"SELECT content_hash FROM {ITEMS} AS item")

    (tmp_path / "old").rename(tmp_path / "new")
    summary = import_catalog(database, "shop", str(tmp_path / "new"))

    (after,) = select(database, f"SELECT content_hash FROM {ITEMS} AS item")
    assert counts(summary) == (1, 0, 0)
    assert bytes(after.content_hash) == bytes(before.content_hash)
    assert items(database)["a"][0][0]["uri"] == f"{tmp_path}/new/a.png"


def test_items_that_left_the_source_stay_unless_pruned_and_come_back(database):
    run_rows(database, [row("a"), row("b")])

    assert run_rows(database, [row("a")]).gone == 0
    assert set(items(database)) == {"a", "b"}

    assert run_rows(database, [row("a")], prune=True).gone == 1
    assert set(items(database)) == {"a"}
    assert set(items(database, "gone")) == {"b"}

    assert counts(run_rows(database, [row("a"), row("b")])) == (1, 0, 1)
    assert set(items(database)) == {"a", "b"}


def test_pruning_spares_an_item_whose_new_version_is_bad(database):
    run_rows(database, [row("a"), row("b")])

    summary = run_rows(database, [row("a"), row("b", "")], prune=True)

    assert counts(summary) == (0, 1, 1)
    assert set(items(database)) == {"a", "b"}


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row("a"), BadRow(position="2.tar", reason="source_lost", message="m", ends_file=True)],
    ],
    ids=["empty", "broken off"],
)
def test_a_source_that_was_not_read_to_its_end_prunes_nothing(database, rows):
    run_rows(database, [row("a"), row("b")])

    summary = run_rows(database, rows, prune=True)

    assert set(items(database)) == {"a", "b"}
    assert list(failures(database, summary.import_id, fatal=False).values()) == ["not_pruned"]


def test_two_catalogues_may_use_the_same_ids(database):
    run_rows(database, [row("a")], name="one")

    assert counts(run_rows(database, [row("a", "other")], name="two")) == (1, 0, 0)
    assert select(database, "SELECT count(*) FROM item")[0][0] == 2


# --- what is bad ---------------------------------------------------------------------------------


def test_each_bad_row_is_recorded_and_the_rest_goes_through(database, tmp_path):
    complete = image_bytes(size=(64, 64))
    (tmp_path / "cut.png").write_bytes(complete[: len(complete) // 2])
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("this is no image")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "other.gif").write_bytes(complete)
    source = write_jsonl(
        tmp_path / "t.jsonl",
        [
            {"id": "good", "text": "x"},
            {"id": "cut", "image": "cut.png"},
            {"id": "zero", "image": "empty.png"},
            {"id": "text", "image": "text.png"},
            {"id": "folder", "image": "folder.png"},
            {"id": "missing", "image": "missing.png", "text": "with a caption"},
            {"id": "caption", "image": "other.gif", "text": ""},
            {"id": "good", "text": "again"},
            b"{malformed",
            {"text": "no id"},
            {"id": "wrong extension", "image": "other.gif"},
        ],
    )

    summary = import_catalog(database, "shop", str(source))

    assert counts(summary) == (3, 8, 0)
    assert stored_counts(database, summary.import_id) == (3, 8, 0)
    assert set(items(database)) == {"good", "caption", "wrong extension"}
    assert failures(database, summary.import_id) == {
        ("item", "cut"): "image_unreadable",
        ("item", "zero"): "image_unreadable",
        ("item", "text"): "image_unreadable",
        ("item", "folder"): "image_unreadable",
        ("item", "missing"): "image_missing",
        ("item", "good"): "duplicate_id",
        ("line", "t.jsonl:9"): "malformed_line",
        ("line", "t.jsonl:10"): "missing_id",
    }


def test_without_verification_a_broken_image_is_left_to_the_embed_job(database, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"nothing")
    source = write_jsonl(
        tmp_path / "t.jsonl",
        [{"id": "broken", "image": "broken.png"}, {"id": "missing", "image": "missing.png"}],
    )

    summary = import_catalog(database, "shop", str(source), verify="never")

    assert failures(database, summary.import_id) == {("item", "missing"): "image_missing"}
    assert len(items(database)["broken"][0][0]["sha256"]) == 64


def test_an_image_far_away_is_not_fetched(database):
    far = RawRow(
        position="1", fields={"id": "a", "image": "https://example.invalid/a.png"}, folder="/"
    )

    assert counts(run_rows(database, [far])) == (1, 0, 0)
    assert items(database)["a"][0] == [
        {"kind": "image", "uri": "https://example.invalid/a.png", "sha256": ""}
    ]


def test_a_duplicate_is_found_however_far_away_and_the_first_good_one_wins(database):
    rows = [row("bad first", ""), row("a", "first"), *(row(str(n)) for n in range(2500))]

    summary = run_rows(database, [*rows, row("a", "last"), row("bad first", "good"), row("7")])

    assert counts(summary) == (2502, 3, 0)
    assert items(database)["a"][0][0]["text"] == "first"
    assert items(database)["bad first"][0][0]["text"] == "good"


def test_a_duplicate_of_an_unchanged_item_is_found_too(database):
    run_rows(database, [row("a"), row("b")])

    assert counts(run_rows(database, [row("a"), row("a"), row("b")])) == (0, 1, 2)


def test_odd_ids_and_texts_are_kept_to_the_letter(database):
    odd = ["x" * 300, "a'b\"c{d}[e]\\f%s:x", "ünïcödé 名前", "tab\tand\nline", "\x01\x1b[31m\x7f"]
    special = "<|im_end|> <|image_pad|> \x01\x1b \\N \\. :name %(x)s"

    summary = run_rows(database, [row(identity, special) for identity in odd])

    assert counts(summary) == (5, 0, 0)
    assert set(items(database)) == set(odd)
    assert {parts[0]["text"] for parts, _ in items(database).values()} == {special}


def test_reasons_can_be_stored_whatever_the_source_held(database):
    """The name of a field goes into the message; NUL and lone surrogates must not stop it."""
    rows = [
        RawRow(position="\ud800\0", fields={"id": "a", "n\0\ud800": 1}, folder="/"),
        RawRow(position="2", fields={"id": "a" * 5000, "text": "x"}, folder="/"),
    ]

    summary = run_rows(database, rows)

    assert counts(summary) == (0, 2, 0)


# --- where images may lie ----------------------------------------------------------------------


def test_a_row_cannot_name_what_lies_elsewhere(database, tmp_path):
    write_image(tmp_path / "secret" / "a.png")
    write_image(tmp_path / "shop" / "good.png")
    (tmp_path / "shop" / "link.png").symlink_to(tmp_path / "secret" / "a.png")
    secret = tmp_path / "secret" / "a.png"
    rows = [
        {"id": "good", "image": "good.png"},
        {"id": "absolute", "image": str(secret)},
        {"id": "dots", "image": "../secret/a.png"},
        {"id": "link", "image": "link.png"},
        {"id": "url", "image": f"file://{secret}"},
        {"id": "chained", "image": f"simplecache::file://{secret}"},
        {"id": "member", "image": f"tar://a.png?offset=0&size=9::{secret}"},
        {"id": "list", "parts": [{"text": "x"}, {"image": str(secret)}]},
        {"id": "password", "image": "https://user:word@images.example/a.png"},
    ]
    source = str(write_jsonl(tmp_path / "shop" / "t.jsonl", rows))

    summary = import_catalog(database, "shop", source)
    declared = import_catalog(database, "open", source, image_roots=[str(tmp_path / "secret")])

    assert counts(summary) == (1, 8, 0)
    assert set(failures(database, summary.import_id).values()) == {"image_not_allowed"}
    assert counts(declared) == (6, 3, 0)
    left = {subject for _, subject in failures(database, declared.import_id)}
    assert left == {"chained", "member", "password"}


def test_a_folder_gives_nothing_away_by_links(database, tmp_path):
    write_image(tmp_path / "secret" / "a.png")
    (tmp_path / "secret" / "a.txt").write_text("the password")
    for name in ("a.png", "b.png"):
        write_image(tmp_path / "shop" / name)
    (tmp_path / "shop" / "c.png").symlink_to(tmp_path / "secret" / "a.png")
    (tmp_path / "shop" / "b.txt").symlink_to(tmp_path / "secret" / "a.txt")

    summary = import_catalog(database, "shop", str(tmp_path / "shop"))

    assert set(items(database)) == {"a"}
    assert failures(database, summary.import_id) == {
        ("line", "b.png"): "caption_not_allowed",
        ("item", "c"): "image_not_allowed",
    }


def test_a_parquet_file_of_another_schema_fails_its_own_rows_only(database, tmp_path):
    pq.write_table(pa.table({"id": ["a"], "text": ["x"]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"sku": [1.5], "price": [2]}), tmp_path / "2.parquet")
    pq.write_table(pa.table({"id": [["b"]], "text": [{"en": "x"}]}), tmp_path / "3.parquet")
    pq.write_table(pa.table({"id": ["c"], "text": [b"bytes"]}), tmp_path / "4.parquet")
    pq.write_table(pa.table({"id": ["d"], "text": ["y"]}), tmp_path / "5.parquet")

    summary = import_catalog(database, "shop", str(tmp_path))

    assert set(items(database)) == {"a", "d"}
    assert failures(database, summary.import_id) == {
        ("line", "2.parquet:1"): "missing_id",
        ("line", "3.parquet:1"): "bad_id",
        ("item", "c"): "text_not_string",
    }


def test_texts_that_are_none_are_refused_each_by_its_reason(database, tmp_path):
    rows = [
        {"id": "empty", "text": ""},
        {"id": "whitespace", "text": " \t\n\u3000"},
        {"id": "long", "text": "x" * 10**7},
        {"id": "nul", "text": "a\0b"},
        {"id": "surrogate", "text": "\ud800"},
        {"id": "nested", "text": {"en": "x"}},
        b'{"id": "latin", "text": "Stra\xdfe"}',
        {"id": "control", "text": "".join(map(chr, range(1, 32))) + "\x7f\u2028"},
    ]

    summary = import_catalog(database, "shop", str(write_jsonl(tmp_path / "t.jsonl", rows)))

    assert counts(summary) == (1, 7, 0)
    assert items(database)["control"][0][0]["text"] == rows[-1]["text"]
    assert failures(database, summary.import_id) == {
        ("item", "empty"): "empty_text",
        ("item", "whitespace"): "empty_text",
        ("item", "long"): "text_too_long",
        ("item", "nul"): "nul_character",
        ("item", "surrogate"): "not_utf8",
        ("item", "nested"): "text_not_string",
        ("line", "t.jsonl:7"): "not_utf8",
    }


# --- where images come from --------------------------------------------------------------------


def test_images_in_a_tar_stay_there_and_can_be_read_again(database, tmp_path):
    complete = image_bytes("blue", size=(64, 64))
    members = [("1.png", complete), ("1.txt", b"x"), ("2.png", complete[:99])]
    source = write_tar(tmp_path / "s.tar", members)

    summary = import_catalog(database, "shop", str(source))

    (image, _), _ = items(database)["1"]
    assert read_image(image["uri"]).getpixel((0, 0)) == (0, 0, 255)
    assert failures(database, summary.import_id) == {("item", "2"): "image_unreadable"}


def test_images_in_parquet_cells_are_kept_once_by_digest(database, tmp_path):
    cells = [image_bytes("red"), image_bytes("red"), image_bytes("blue"), b"nothing"]
    pq.write_table(pa.table({"id": list("abcd"), "image": cells}), tmp_path / "t.parquet")
    blobs = BlobStore(tmp_path / "blobs")

    summary = import_catalog(database, "shop", str(tmp_path / "t.parquet"), blobs=blobs)

    stored = items(database)
    assert counts(summary) == (3, 1, 0)
    assert stored["a"] == stored["b"]
    assert read_image(stored["c"][0][0]["uri"]).getpixel((0, 0)) == (0, 0, 255)
    assert sum(path.is_file() for path in (tmp_path / "blobs").rglob("*")) == 2


def test_images_in_cells_need_a_place_to_be_kept(database, tmp_path):
    pq.write_table(pa.table({"id": ["a"], "image": [image_bytes()]}), tmp_path / "t.parquet")

    summary = import_catalog(database, "shop", str(tmp_path / "t.parquet"))

    assert failures(database, summary.import_id) == {("item", "a"): "no_blob_store"}


# --- streams that stop ---------------------------------------------------------------------------


def test_a_long_source_is_consumed_as_it_is_written(database):
    """At most a batch and a few rows are in memory, however long the source."""
    consumed = 0
    ahead = []

    def endless():
        nonlocal consumed
        for number in range(20_000):
            consumed += 1
            yield row(str(number))

    summary = run_rows(database, endless(), progress=lambda s: ahead.append(consumed - s.read))

    assert counts(summary) == (20_000, 0, 0)
    assert len(ahead) == 20
    assert max(ahead) <= 64 + 1


def test_long_texts_make_small_batches(database):
    sizes = []
    rows = (row(str(number), "x" * 1_000_000) for number in range(20))

    run_rows(database, rows, progress=lambda summary: sizes.append(summary.read))

    assert sizes == [9, 18, 20]


def test_images_that_came_inside_the_source_are_let_go_again(database):
    def rows():
        for number in range(300):
            image = EmbeddedImage(data=os.urandom(2**20), address=f"tar://{number}")
            fields = {"id": number, "image": image}
            yield RawRow(position=str(number), fields=fields, folder="/")

    checker = RowChecker(names=FieldNames(), kind=SubjectKind.ITEM, verify="never")
    tracemalloc.start()
    try:
        summary = import_rows(database, "shop", "rows", rows(), checker=checker)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert counts(summary) == (300, 0, 0)
    assert peak < 100 * 2**20


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError])
def test_an_import_that_is_stopped_half_way_adds_up(database, error):
    def stopping():
        for number in range(1500):
            yield row(str(number) if number % 3 else "", "x")
        raise error

    with pytest.raises(error):
        run_rows(database, stopping())

    (record,) = select(database, "SELECT * FROM catalog_import")
    assert record.finished_at is not None
    assert stored_counts(database, record.id) == (0, 334, 0)
    assert (record.read, record.not_applied) == (1000, 666)
    assert items(database) == {}
    assert list(failures(database, record.id, fatal=False).values()) == ["interrupted"]


def test_an_interrupted_import_leaves_everything_to_the_next(database):
    def stopping():
        yield from (row(str(number)) for number in range(1500))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_rows(database, stopping())

    assert counts(run_rows(database, (row(str(n)) for n in range(2000)))) == (2000, 0, 0)


def test_an_import_that_was_killed_is_closed_by_the_next_of_its_catalogue(database):
    run_rows(database, [row("whole")])
    with database.begin() as connection:
        killed = begin_import(connection, 1, "killed")
        begin_import(connection, ensure_catalog(connection, "other"), "still runs")

    following = run_rows(database, [row("following")])

    ended = "SELECT id FROM catalog_import WHERE finished_at IS NOT NULL ORDER BY id"
    assert [entry.id for entry in select(database, ended)] == [1, killed, following.import_id]
    rows = select(database, "SELECT import_id, reason, fatal FROM failure")
    assert [tuple(entry) for entry in rows] == [(killed, "interrupted", False)]


def test_a_source_that_vanishes_half_way_is_recorded(database, tmp_path):
    for name in ("1", "2"):
        rows = [{"id": f"{name}-{number}", "text": "x"} for number in range(1200)]
        write_jsonl(tmp_path / f"{name}.jsonl", rows)

    summary = import_catalog(
        database,
        "shop",
        str(tmp_path),
        progress=lambda _: (tmp_path / "2.jsonl").unlink(missing_ok=True),
    )

    assert counts(summary) == (1200, 1, 0)
    assert failures(database, summary.import_id) == {("line", "2.jsonl"): "file_missing"}


def test_a_newer_import_of_the_catalogue_stops_an_older_one(database):
    """Else the two would take each other's rows for duplicates, or miss their own."""

    def overtaken():
        yield from (row(str(number)) for number in range(1500))
        with database.begin() as connection:
            begin_import(connection, 1, "newer")
        yield from (row(str(number)) for number in range(1500, 3000))

    with pytest.raises(ConflictError):
        run_rows(database, overtaken())

    assert items(database) == {}
    assert stored_counts(database, 1) == (0, 0, 0)
    assert list(failures(database, 1, fatal=False).values()) == ["interrupted"]


good = st.builds(row, st.sampled_from("abcdefghij"), st.sampled_from(["x", "y"]))
bad = st.one_of(
    st.builds(row, st.sampled_from(["a", "", "\0", "x" * 2000]), st.sampled_from(["", "\0", 5])),
    st.just(BadRow(position="f:1", reason="malformed_line", message="m")),
    st.builds(
        RawRow,
        position=st.just("f:2"),
        fields=st.fixed_dictionaries({"id": st.sampled_from("ab"), "image": st.just("/none.png")}),
        folder=st.just("/"),
    ),
)


@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.lists(good | bad, max_size=30), min_size=1, max_size=3))
def test_counts_add_up_for_any_mixture_of_rows(database, imports):
    """Also that they are right: a model of ten lines says what each row must become."""
    name = f"catalogue {os.urandom(8).hex()}"
    known = {}
    for rows in imports:
        expected = {"accepted": 0, "failed": 0, "unchanged": 0}
        visited = set()
        for entry in rows:
            given_id = entry.fields.get("id") if isinstance(entry, RawRow) else None
            content = entry.fields.get("text") if isinstance(entry, RawRow) else None
            if (
                content not in ("x", "y")
                or given_id not in list("abcdefghij")
                or given_id in visited
            ):
                expected["failed"] += 1
                continue
            visited.add(given_id)
            expected["unchanged" if known.get(given_id) == content else "accepted"] += 1
            known[given_id] = content

        summary = run_rows(database, rows, name=name)

        assert counts(summary) == tuple(expected.values())
        assert summary.read == len(rows)
        assert stored_counts(database, summary.import_id) == tuple(expected.values())
        (failed,) = select(
            database,
            "SELECT count(*) FROM failure WHERE import_id = :i",
            i=summary.import_id,
        )
        assert failed[0] == expected["failed"]


# --- the command line ----------------------------------------------------------------------------


@pytest.fixture
def nightshift(database_url, tmp_path, monkeypatch):
    monkeypatch.setenv("NIGHTSHIFT_DATABASE_URL", database_url)
    monkeypatch.setenv("NIGHTSHIFT_DATA_DIR", str(tmp_path / "data"))
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_command_prints_four_counts_and_exits_with_zero(nightshift, tmp_path):
    source = write_jsonl(tmp_path / "t.jsonl", [{"id": "a", "text": "x"}])

    result = nightshift("catalog", "import", "shop", source, "--json")

    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "read": 1, "accepted": 1, "failed": 0, "unchanged": 0, "revision": 1,
    }  # fmt: skip
    assert result.stderr == ""


def test_the_command_names_what_it_left_out_and_exits_with_zero(nightshift, tmp_path):
    write_jsonl(tmp_path / "t.jsonl", [{"id": "a", "text": "x"}])
    (tmp_path / "u.json").touch()

    result = nightshift("catalog", "import", "shop", tmp_path, "--json")

    assert result.exit_code == 0
    facts = json.loads(result.stdout)
    assert (facts["read"], facts["left_out"], facts["left_out_names"]) == (1, 1, ["u.json"])
    assert "1 file was left out: 1 .json (u.json)" in result.stderr


def test_the_command_exits_with_seven_and_says_how_to_list_what_failed(nightshift, tmp_path):
    rows = [{"id": "a", "text": "x"}, b"{", {"id": "b", "text": ""}, {"id": "b", "text": ""}]
    source = write_jsonl(tmp_path / "t.jsonl", rows)

    result = nightshift("catalog", "import", "my shop", source, "--json")

    assert result.exit_code == 7
    assert json.loads(result.stdout) == {
        "read": 4, "accepted": 1, "failed": 3, "unchanged": 0, "revision": 1,
    }  # fmt: skip
    assert "2 empty_text, 1 malformed_line" in result.stderr
    assert "nightshift catalog failures 'my shop'" in result.stderr

    listed = json.loads(nightshift("catalog", "failures", "my shop", "--json").stdout)
    assert [entry["reason"] for entry in listed] == ["malformed_line", "empty_text", "empty_text"]
    table = nightshift("catalog", "failures", "my shop", "--reason", "malformed_line").stdout
    assert "t.jsonl:2" in table
    assert "empty_text" not in table


def test_fields_are_mapped_and_images_in_cells_kept_by_the_command(nightshift, tmp_path):
    table = pa.table({"sku": [1], "photo": [image_bytes()], "text": ["for search engines"]})
    pq.write_table(table, tmp_path / "t.parquet")
    options = ("--map", "id=sku", "--map", "image=photo", "--map", "text=text")

    result = nightshift("catalog", "import", "shop", tmp_path / "t.parquet", *options)

    assert result.exit_code == 0
    shown = json.loads(nightshift("catalog", "show", "shop", "--json").stdout)
    assert (shown["live"], shown["text_and_image"]) == (1, 1)
    assert shown["imports"][0]["accepted"] == 1
    assert list((tmp_path / "data" / "blobs").rglob("*"))


def test_what_a_source_no_longer_names_is_gone_where_the_command_says_so(nightshift, tmp_path):
    rows = [{"id": "a", "text": "x"}, {"id": "b", "text": "y"}]
    nightshift("catalog", "import", "shop", write_jsonl(tmp_path / "t.jsonl", rows))
    fewer = write_jsonl(tmp_path / "t.jsonl", rows[:1])

    def live(*options: str) -> int:
        assert nightshift("catalog", "import", "shop", fewer, *options).exit_code == 0
        return json.loads(nightshift("catalog", "show", "shop", "--json").stdout)["live"]

    assert live() == 2
    assert live("--prune") == 1


def test_images_are_left_for_the_worker_to_decode_where_the_command_says_so(nightshift, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    source = write_jsonl(tmp_path / "t.jsonl", [{"id": "a", "image": "broken.png"}])

    verified = nightshift("catalog", "import", "careful", source)
    left = nightshift("catalog", "import", "quick", source, "--no-verify")

    assert (verified.exit_code, left.exit_code) == (7, 0)


def test_catalogues_are_listed_with_what_they_hold(nightshift, tmp_path):
    source = write_jsonl(tmp_path / "t.jsonl", [{"id": "a", "text": "x"}])
    nightshift("catalog", "import", "a[shop]", source)

    (listed,) = json.loads(nightshift("catalog", "list", "--json").stdout)

    assert (listed["name"], listed["live"], listed["text_only"]) == ("a[shop]", 1, 1)
    assert "a[shop]" in nightshift("catalog", "list").stdout
    assert "a[shop]" in nightshift("catalog", "show", "a[shop]").stdout


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (["import", "shop", "/nowhere.jsonl"], 3),
        (["import", "shop", "/etc/hostname"], 2),
        (["import", "shop", "x.jsonl", "--map", "nonsense"], 2),
        (["show", "nothing"], 3),
        (["failures", "nothing"], 3),
    ],
)
def test_what_cannot_be_done_has_its_exit_code_and_leaves_no_catalogue(
    nightshift, arguments, exit_code
):
    result = nightshift("catalog", *arguments)

    assert result.exit_code == exit_code
    assert result.stderr.startswith("Error: ")
    assert json.loads(nightshift("catalog", "list", "--json").stdout) == []


@pytest.mark.parametrize("command", ["import", "list", "show", "failures"])
def test_every_command_has_help_with_an_example(nightshift, command):
    result = nightshift("catalog", command, "--help")

    assert result.exit_code == 0
    assert f"nightshift catalog {command}" in result.stdout
