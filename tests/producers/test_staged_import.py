"""An import changes its catalogue in one step at its end, or, past a limit, not at all."""

import json
import signal
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from nightshift.cli.main import main
from nightshift.producers.catalog_import import ImportLimits, Limit, import_catalog, import_rows
from nightshift.producers.row_checks import RowChecker
from nightshift.producers.sources import BadRow, FieldNames, RawRow
from nightshift.schema.errors import ConfigurationError, ServiceUnavailableError
from nightshift.schema.states import SubjectKind
from nightshift.stores.catalog.source_keys import source_key
from nightshift.stores.index.embeddings import drop_unneeded, unneeded_keys
from nightshift.stores.index.indexes import live_items
from tests.catalog_rows import ITEMS
from tests.producers.source_files import write_image, write_jsonl, write_tar


def select(database, statement, **values):
    with database.begin() as connection:
        return [tuple(row) for row in connection.execute(text(statement), values)]


def execute(database, statement, **values):
    with database.begin() as connection:
        connection.execute(text(statement), values)


def ids(database, state="live"):
    rows = select(
        database,
        "SELECT external_id FROM item WHERE EXISTS (SELECT FROM item_version WHERE item_id = "
        "item.id AND last_revision = 2147483647) = (:s = 'live') ORDER BY id",
        s=state,
    )
    return [external_id for (external_id,) in rows]


#: Who touched each item and its current version last.
TOUCHED = (
    "SELECT item.id, external_id, item.xmin::text, import_id, v.xmin::text FROM item "
    "JOIN item_version v ON v.item_id = item.id AND last_revision = 2147483647 ORDER BY 1"
)


def notices(database, import_id):
    return select(
        database, "SELECT reason FROM failure WHERE import_id = :i AND NOT fatal", i=import_id
    )


def row(identity, content="x", **fields):
    fields = {"id": identity, "text": content} | fields
    return RawRow(position=f"rows:{identity}", fields=fields, folder="/")


def numbered(*numbers):
    return [row(str(number)) for number in numbers]


def run_rows(database, rows, source="rows", **limits):
    checker = RowChecker(names=FieldNames(), kind=SubjectKind.ITEM)
    limits = {
        name: Limit.parse(value) if isinstance(value, str) else value
        for name, value in limits.items()
    }
    return import_rows(
        database, "shop", source, rows, checker=checker, limits=ImportLimits(**limits)
    )


# --- one step ------------------------------------------------------------------------------------


def test_nothing_of_an_import_is_in_before_its_end(database):
    recorded = []

    def rows():
        for number in range(2500):
            if number % 1000 == 999:
                recorded.append(len(ids(database)))
            yield row(str(number))

    run_rows(database, rows())

    assert recorded == [0, 0]
    assert len(ids(database)) == 2500


def test_an_import_of_what_is_stored_touches_no_item(database):
    run_rows(database, numbered(*range(30)))
    before = select(database, TOUCHED)

    summary = run_rows(database, numbered(*reversed(range(30))), prune=True)

    assert (summary.unchanged, summary.accepted) == (30, 0)
    assert select(database, TOUCHED) == before


def test_only_items_that_changed_are_touched(database):
    run_rows(database, numbered(*range(30)))
    before = {name: touched for _, name, *touched in select(database, TOUCHED)}

    run_rows(database, [*numbered(*range(29)), row("29", "new")])

    after = {name: touched for _, name, *touched in select(database, TOUCHED)}
    assert {name for name in before if before[name] != after[name]} == {"29"}


def test_what_an_import_holds_does_not_grow_with_its_rows(database):
    """Also the duplicates and the failures of a long one are not held at once."""

    def rows():
        for number in range(6000):
            yield row(str(number % 4000), "x" * 20_000 if number < 4000 else "again")

    tracemalloc.start()
    try:
        summary = run_rows(database, rows())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (summary.accepted, summary.failed) == (4000, 2000)
    assert peak < 60 * 2**20


_CHILD = """
import sys, time
from nightshift.producers.catalog_import import import_rows
from nightshift.producers.row_checks import RowChecker
from nightshift.producers.sources import FieldNames, RawRow
from nightshift.schema.states import SubjectKind
from nightshift.stores.postgres.database import Database

def rows():
    for number in range(1500):
        yield RawRow(position="", fields={"id": number, "text": "new"}, folder="/")
    time.sleep(float(sys.argv[2]))

checker = RowChecker(names=FieldNames(), kind=SubjectKind.ITEM)
with Database(sys.argv[1]) as database:
    import_rows(database, "shop", "rows", rows(), checker=checker)
"""


def wait_until(database, statement):
    deadline = time.monotonic() + 60
    while not select(database, f"SELECT {statement}")[0][0]:
        assert time.monotonic() < deadline, statement
        time.sleep(0.05)


def child(database_url, sleep_s):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_CHILD), database_url, str(sleep_s)]
    )


def test_an_import_that_is_killed_while_it_reads_leaves_nothing(database, database_url):
    run_rows(database, numbered(1, 2))
    process = child(database_url, 600)
    wait_until(database, "count(*) > 0 FROM catalog_import WHERE read = 1000")

    process.send_signal(signal.SIGKILL)
    process.wait()

    assert select(database, f"SELECT DISTINCT parts[0] ->> 'text' FROM {ITEMS} AS item") == [("x",)]
    following = run_rows(database, numbered(1, 2, 3))
    assert (following.accepted, following.unchanged) == (1, 2)
    assert notices(database, following.import_id - 1) == [("interrupted",)]
    assert select(
        database,
        "SELECT accepted, unchanged, not_applied, read FROM catalog_import WHERE id = :i",
        i=following.import_id - 1,
    ) == [(0, 0, 1000, 1000)]
    assert select(database, "SELECT count(*) FROM pg_class WHERE relname = 'staged'") == [(0,)]


def test_an_import_that_is_killed_while_it_is_applied_leaves_nothing(database, database_url):
    run_rows(database, numbered(*range(20)))
    with database.engine.connect() as holder, holder.begin():
        holder.execute(text("SELECT FROM item WHERE external_id = '7' FOR UPDATE"))
        process = child(database_url, 0)
        wait_until(
            database,
            "count(*) > 0 FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        process.send_signal(signal.SIGKILL)
        process.wait()

    following = run_rows(database, numbered(*range(20)))

    assert following.unchanged == 20
    assert notices(database, following.import_id - 1) == [("interrupted",)]


def test_an_import_whose_connection_is_cut_leaves_the_catalogue_as_it_was(database):
    run_rows(database, numbered(1))

    def rows():
        yield from numbered(*range(1500))
        execute(
            database,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        yield from numbered(*range(1500, 3000))

    with pytest.raises(ServiceUnavailableError):
        run_rows(database, rows())

    assert ids(database) == ["1"]
    assert notices(database, 2) == [("interrupted",)]


def test_an_import_that_begins_while_another_is_applied_waits_for_it(database):
    run_rows(database, numbered(*range(20)))
    ends = {}

    def run(name):
        ends[name] = run_rows(database, [row(str(number), name) for number in range(20)])

    first, second = (threading.Thread(target=run, args=(name,)) for name in ("a", "b"))
    waiting = (
        "count(*) = {} FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with database.engine.connect() as holder, holder.begin():
        holder.execute(text("SELECT FROM item WHERE external_id = '7' FOR UPDATE"))
        first.start()
        wait_until(database, waiting.format(1))
        second.start()
        wait_until(database, waiting.format(2))
    first.join()
    second.join()

    assert ends["a"].accepted == ends["b"].accepted == 20
    assert select(database, f"SELECT DISTINCT parts[0] ->> 'text' FROM {ITEMS} AS item") == [("b",)]
    assert select(database, "SELECT count(*) FROM catalog_import WHERE finished_at IS NULL") == [
        (0,)
    ]


# --- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "total", "allowed"),
    [("0", 50, 0), ("7", 5, 7), ("10%", 9, 0), ("10%", 30, 3), ("2.5%", 100, 2), ("0%", 9, 0),
     ("100%", 9, 9), (" 5% ", 20, 1), ("7%", 100, 7)],
)  # fmt: skip
def test_a_limit_is_a_number_or_a_share(given, total, allowed):
    assert Limit.parse(given).of(total) == allowed


@pytest.mark.parametrize(
    "given",
    ["", "%", "-1", "-1%", "101%", "5%%", "five", "1/0%", "nan%", "²", "1e999999999%", "9" * 5000],
)
def test_other_limits_are_refused(given):
    with pytest.raises(ConfigurationError):
        Limit.parse(given)


@pytest.mark.parametrize(
    ("max_gone", "refused"),
    [("10%", True), ("49%", True), ("50%", False), ("9", True), ("10", False), ("0%", True)],
)
def test_an_import_that_would_let_too_many_go_is_refused(database, max_gone, refused):
    run_rows(database, numbered(*range(20)))

    fewer = [*numbered(*range(9)), row("9", "changed"), row("new")]
    summary = run_rows(database, fewer, prune=True, max_gone=max_gone)

    if refused:
        assert (summary.refused, summary.gone, summary.not_applied) == ("too_many_gone", 0, 11)
        assert ids(database) == [str(number) for number in range(20)]
        assert select(database, f"SELECT DISTINCT parts[0] ->> 'text' FROM {ITEMS} AS item") == [
            ("x",)
        ]
        assert notices(database, summary.import_id) == [("too_many_gone",)]
    else:
        assert (summary.refused, summary.gone, summary.accepted) == ("", 10, 2)
        assert len(ids(database)) == 11


@pytest.mark.parametrize(
    ("max_failures", "refused"), [(None, False), ("2", True), ("3", False), ("29%", True)]
)
def test_an_import_with_too_many_failures_is_refused_and_they_are_recorded(
    database, max_failures, refused
):
    rows = [*numbered(*range(7)), row("bad", ""), row("3"), BadRow(
        position="rows:9", reason="malformed_line", message="m")]  # fmt: skip

    summary = run_rows(database, rows, max_failures=max_failures)

    assert summary.failed == 3
    assert summary.refused == ("too_many_failures" if refused else "")
    assert len(ids(database)) == (0 if refused else 7)
    assert summary.not_applied == (7 if refused else 0)
    fatal = "SELECT count(*) FROM failure WHERE fatal AND import_id = :i"
    assert select(database, fatal, i=summary.import_id) == [(3,)]


@pytest.mark.parametrize(
    "fault",
    [
        BadRow(position="1.jsonl:7", reason="malformed_line", message="m"),
        RawRow(position="1.jsonl:8", fields={"text": "without an id"}, folder="/"),
    ],
    ids=["unreadable", "without an id"],
)
def test_a_row_whose_id_is_unknown_keeps_everything_from_going(database, fault):
    run_rows(database, numbered(*range(20)))

    spared = run_rows(database, [*numbered(*range(19)), fault], prune=True)
    accepted = run_rows(database, [*numbered(*range(19)), fault], prune=True, accept_unreadable=1)

    assert (spared.gone, spared.refused, spared.unchanged) == (0, "", 19)
    assert "--accept-unreadable 1" in spared.not_pruned
    assert (accepted.gone, accepted.not_pruned) == (1, "")


def test_no_number_of_accepted_rows_makes_up_for_a_file_that_broke_off(database):
    run_rows(database, numbered(*range(20)))
    fault = BadRow(position="2.tar", reason="source_lost", message="m", ends_file=True)

    summary = run_rows(database, [*numbered(*range(19)), fault], prune=True, accept_unreadable=100)

    assert summary.gone == 0
    assert "not read to its end" in summary.not_pruned


def test_a_tar_that_was_cut_between_two_files_was_not_read_to_its_end(database, tmp_path):
    """Where `tarfile` sees the end of the tar, and a damaged header too."""
    members = [(f"{number}.txt", b"a text") for number in range(20)]
    path = write_tar(tmp_path / "shard.tar", members)
    import_catalog(database, "shop", str(path))
    complete = path.read_bytes()

    for spoilt in (complete[: 19 * 1024], complete[: 19 * 1024] + b"x" * 512 + complete[-10240:]):
        path.write_bytes(spoilt)
        summary = import_catalog(database, "shop", str(path), prune=True)
        assert (summary.gone, summary.broken_files) == (0, 1)
        assert len(ids(database)) == 20


def test_a_folder_whose_caption_is_unreadable_spares_its_item_and_prunes_others(database, tmp_path):
    for name in ("a", "b", "c"):
        write_image(tmp_path / "photos" / f"{name}.png")
        (tmp_path / "photos" / f"{name}.txt").write_text("caption")
    import_catalog(database, "shop", str(tmp_path / "photos"))
    (tmp_path / "photos" / "b.txt").write_bytes(b"\xff\xfe\xfd")
    (tmp_path / "photos" / "c.png").unlink()

    summary = import_catalog(database, "shop", str(tmp_path / "photos"), prune=True)

    assert ids(database) == ["a", "b"]
    assert (summary.gone, summary.failed) == (1, 1)


def test_an_empty_folder_in_place_of_a_full_one_lets_nothing_go(database, tmp_path):
    for number in range(3):
        write_image(tmp_path / "mount" / f"{number}.png")
    import_catalog(database, "shop", str(tmp_path / "mount"))
    (tmp_path / "mount").rename(tmp_path / "away")
    (tmp_path / "mount").mkdir()

    summary = import_catalog(database, "shop", str(tmp_path / "mount"), prune=True)

    assert summary.not_pruned
    assert len(ids(database)) == 3


def test_shards_that_are_missing_from_a_pattern_refuse_the_import(database, tmp_path):
    for shard in range(4):
        rows = [{"id": f"{shard}-{number}", "text": "x"} for number in range(5)]
        write_jsonl(tmp_path / f"{shard}.jsonl", rows)
    pattern = str(tmp_path / "*.jsonl")
    import_catalog(database, "shop", pattern)
    (tmp_path / "2.jsonl").unlink()

    assert import_catalog(database, "shop", pattern, prune=True).refused == "too_many_gone"
    assert len(ids(database)) == 20


@pytest.mark.parametrize(("max_gone", "gone"), [("10%", 1), ("0%", 0), ("0", 0)])
def test_one_item_of_a_few_may_go_unless_none_may(database, max_gone, gone):
    run_rows(database, numbered(1, 2))

    assert run_rows(database, numbered(1), prune=True, max_gone=max_gone).gone == gone


# --- kinds of parts ------------------------------------------------------------------------------


def far(number, *, image="image", content="x"):
    fields = {image: f"https://images.example/{number}.png"}
    return row(str(number), content, **fields)


def test_a_feed_whose_image_column_was_renamed_is_refused(database):
    run_rows(database, [far(number) for number in range(20)])

    renamed = [far(number, image="picture_url") for number in range(20)]
    refused = run_rows(database, renamed)

    assert refused.refused == "kinds_changed"
    assert "20 of 20 items" in refused.message
    assert "'picture_url'" in refused.message
    assert select(database, f"SELECT count(*) FROM {ITEMS} AS item WHERE image_hash IS NULL") == [
        (0,)
    ]

    meant = run_rows(database, renamed, change_kinds=True)
    assert meant.accepted == 20
    assert select(database, f"SELECT count(*) FROM {ITEMS} AS item WHERE image_hash IS NULL") == [
        (20,)
    ]


@pytest.mark.parametrize(("n_changed", "refused"), [(2, ""), (3, "kinds_changed")])
def test_a_tenth_of_the_items_may_change_their_kinds(database, n_changed, refused):
    run_rows(database, [far(number) for number in range(20)])

    rows = [far(number) for number in range(n_changed, 20)]
    summary = run_rows(database, [*rows, *numbered(*range(n_changed))])

    assert summary.refused == refused


def test_captions_that_are_lost_change_kinds_too(database):
    run_rows(database, [far(number) for number in range(20)])

    summary = run_rows(database, [far(number, content=None) for number in range(20)])

    assert summary.refused == "kinds_changed"


def test_new_items_of_another_kind_and_those_that_come_back_change_nothing(database):
    run_rows(database, [far(number) for number in range(5)])
    execute(database, "UPDATE item_version SET last_revision = 1")

    assert run_rows(database, numbered(*range(50))).accepted == 50


# --- sources -------------------------------------------------------------------------------------


def test_a_source_lets_only_its_own_items_go(database):
    run_rows(database, numbered(*range(20)), source="a")
    run_rows(database, numbered(*range(15, 40)), source="b")

    # 15 to 19 are b's now.
    assert run_rows(database, numbered(*range(14)), source="a", prune=True).gone == 1
    assert ids(database) == [str(number) for number in range(40) if number != 14]
    # Also where an item comes back by another source.
    assert run_rows(database, numbered(*range(14, 40)), source="b").accepted == 1
    assert run_rows(database, numbered(*range(13)), source="a", prune=True).gone == 1
    assert "14" in ids(database)
    assert run_rows(database, numbered(*range(15, 40)), source="b", prune=True).gone == 1
    assert "14" in ids(database, "gone")


def test_an_item_that_failed_stays_with_the_source_that_brought_it(database):
    run_rows(database, numbered(*range(20)), source="a")
    run_rows(database, [row("5", ""), *numbered(*range(20, 40))], source="b")

    rows = [row(str(number)) for number in range(20) if number != 5]
    assert run_rows(database, rows, source="a", prune=True).gone == 1


def test_a_new_source_lets_nothing_go_and_says_why(database):
    run_rows(database, numbered(*range(20)), source="monday.csv")

    summary = run_rows(database, numbered(*range(19)), source="tuesday.csv", prune=True)

    assert (summary.gone, summary.unchanged) == (0, 19)
    assert "1 item of other sources stay" in summary.not_pruned
    assert len(ids(database)) == 20


def test_a_source_is_the_same_by_every_spelling(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    (tmp_path / "latest.csv").symlink_to(tmp_path / "photos" / "monday.csv")
    monkeypatch.chdir(tmp_path)
    folder = str(tmp_path / "photos")
    spellings = ["photos", "./photos/", "photos/../photos", f"file://{folder}/", "link", folder]

    assert {source_key(spelling) for spelling in spellings} == {folder}
    urls = [f"file://localhost{folder}/a%20b.csv", f"FILE:{folder}/a b.csv"]
    assert {source_key(url) for url in urls} == {f"{folder}/a b.csv"}
    assert source_key("latest.csv") == f"{tmp_path}/latest.csv"
    assert source_key("~nobody-at-all/x.csv") == f"{tmp_path}/~nobody-at-all/x.csv"
    assert source_key("link/*.tar") == f"{folder}/*.tar"
    same = ["s3://Bucket/x/y.csv", "S3://bucket/x//y.csv", "s3a://key:word@bucket/x/y.csv"]
    assert len({source_key(address) for address in same}) == 1
    signed = [
        "https://u:p@shop.example/feed?shop=1&X-Amz-Signature=abc&X-Amz-Date=2",
        "https://shop.example/feed?shop=1&X-Amz-Signature=def",
    ]
    assert len({source_key(address) for address in signed}) == 1
    assert source_key(signed[0]) != source_key("https://shop.example/feed?shop=2")


@pytest.mark.parametrize(
    "source",
    [
        "https://user:secret@shop.example/feed.csv",
        "https://shop.example/feed.csv?sig=secret",
        "https://shop.example/feed.csv?unheard-of=secret&shop=1",
        "simplecache::ftp://user:secret@shop.example/feed.csv",
    ],
)
def test_the_name_of_a_source_holds_no_secret(source):
    assert "secret" not in source_key(source)


def old_import(database, *sources):
    """Imports as an earlier release left them: without the key of their source."""
    for number, source in enumerate(sources):
        run_rows(database, numbered(*range(number * 20, number * 20 + 20)), source=source)
    execute(database, "UPDATE catalog_import SET source_key = NULL")


def test_items_of_an_earlier_release_belong_to_the_only_source(database, tmp_path):
    old_import(database, "rows")

    elsewhere = str(tmp_path / "rows")
    assert run_rows(database, numbered(*range(19)), source=elsewhere, prune=True).gone == 1


def test_items_of_an_earlier_release_belong_to_the_source_of_that_spelling(database):
    old_import(database, "a", "b")

    summary = run_rows(database, numbered(*range(19)), source="a", prune=True)

    assert summary.gone == 1
    assert ids(database, "gone") == ["19"]


def test_items_of_an_earlier_release_whose_source_is_unknown_stay_and_are_counted(
    database, tmp_path
):
    old_import(database, "a", "b")
    run_rows(database, numbered(*range(20)), source=str(tmp_path / "a"))

    summary = run_rows(database, numbered(*range(19)), source=str(tmp_path / "a"), prune=True)

    assert (summary.gone, ids(database, "gone")) == (1, ["19"])
    assert notices(database, summary.import_id) == [("unknown_source",)]


# --- indexes -------------------------------------------------------------------------------------

_INDEXES = f"""
INSERT INTO model (fingerprint, kind, spec, card, package_version)
VALUES ('e', 'embedder', 'x', '{{}}', '1');
INSERT INTO index (catalog_id, name, version, embedder, embedder_fingerprint, parts, dim,
    collection, state)
VALUES (1, 'images', 1, 'x', 'e', 'image', 4, 'c1', 'ready'),
    (1, 'texts', 1, 'x', 'e', 'text', 4, 'c2', 'ready'),
    (1, 'both', 1, 'x', 'e', 'text,image', 4, 'c3', 'ready');
INSERT INTO embedding (index_id, item_id, key, content, run_id)
SELECT i.id, item.id, external_id, CASE i.parts WHEN 'text' THEN text_hash
    WHEN 'image' THEN image_hash ELSE content_hash END, 1 FROM {ITEMS} AS item, index i
"""


def searchable(database, revision):
    """The items that a search may return in a revision, by the parts of the index."""
    with database.begin() as connection:
        return {
            name: sorted(live_items(connection, index_id, ["0", "1", "2", "3"], revision=revision))
            for index_id, name in enumerate(("images", "texts", "both"), 1)
        }


def test_items_that_changed_or_are_gone_are_no_candidates_but_in_their_own_revision(database):
    run_rows(database, [far(number) for number in range(4)])
    execute(database, _INDEXES)
    everything = searchable(database, 1)

    rows = [row("0"), far(1, content=None), far(2, content="changed")]
    summary = run_rows(database, rows, prune=True, change_kinds=True)

    assert (summary.gone, summary.revision) == (1, 2)
    assert searchable(database, 2) == {"images": ["1", "2"], "texts": ["0"], "both": []}
    assert searchable(database, 1) == everything
    assert {len(keys) for keys in everything.values()} == {4}


def test_vectors_that_nobody_needs_any_more_are_dropped(database):
    run_rows(database, [far(number) for number in range(4)])
    execute(database, _INDEXES)
    rows = [row("0"), far(1, content=None), far(2, content="changed")]
    run_rows(database, rows, prune=True, change_kinds=True)

    with database.begin() as connection:
        unneeded = {index: unneeded_keys(connection, index_id=index) for index in (1, 2, 3)}
        for index, keys in unneeded.items():
            assert drop_unneeded(connection, index_id=index, keys=keys) == keys

    assert list(map(len, unneeded.values())) == [2, 3, 4]
    assert searchable(database, 2) == {"images": ["1", "2"], "texts": ["0"], "both": []}


def test_a_refused_import_makes_no_revision(database):
    run_rows(database, [far(number) for number in range(4)])
    execute(database, _INDEXES)

    refused = run_rows(database, numbered(*range(4)))

    assert (refused.refused, refused.revision) == ("kinds_changed", 0)
    assert select(database, "SELECT max(number) FROM revision") == [(1,)]
    assert {len(keys) for keys in searchable(database, 1).values()} == {4}


# --- the command line ----------------------------------------------------------------------------


@pytest.fixture
def feed(database_url, tmp_path, monkeypatch):
    """Imports rows from one file into `shop`: (exit code, what `--json` says, stderr)."""
    monkeypatch.setenv("NIGHTSHIFT_DATABASE_URL", database_url)
    monkeypatch.setenv("NIGHTSHIFT_DATA_DIR", str(tmp_path / "data"))

    def run(rows, *options):
        path = write_jsonl(tmp_path / "feed.jsonl", rows)
        result = CliRunner().invoke(
            main, ["catalog", "import", "shop", str(path), "--json", *options]
        )
        return result.exit_code, json.loads(result.stdout), result.stderr

    return run


ROWS = [{"id": str(number), "text": "x"} for number in range(20)]


def test_the_command_says_that_an_import_was_refused_and_exits_with_seven(feed):
    feed(ROWS)

    code, facts, reported = feed(ROWS[:2], "--prune")

    assert code == 7
    assert facts.pop("message").startswith("the import is refused")
    assert facts == {
        "read": 2, "accepted": 0, "failed": 0, "unchanged": 0, "not_applied": 2,
        "refused": "too_many_gone", "gone": 0, "pruned": False,
    }  # fmt: skip
    assert "18 of the 20 items" in reported
    assert feed(ROWS[:2], "--prune", "--max-gone", "90%")[0] == 0


def test_the_command_says_that_nothing_was_pruned_and_exits_with_seven(feed):
    feed(ROWS)

    code, facts, reported = feed([*ROWS[:19], b"{"], "--prune", "--max-failures", "1")

    assert (code, facts["gone"], facts["pruned"]) == (7, 0, False)
    assert "no item was marked as gone" in reported
    options = ("--prune", "--max-failures", "1", "--accept-unreadable", "1")
    code, facts, _ = feed([*ROWS[:19], b"{"], *options)
    assert (code, facts["gone"], facts["pruned"]) == (0, 1, True)


def test_a_bad_row_is_distinguished_from_a_dead_feed_by_the_exit_code(feed):
    assert feed([*ROWS, b"{"], "--max-failures", "5%")[0] == 0
    assert feed([*ROWS, b"{"])[0] == 7

    code, facts, _ = feed([b"{"] * 20 + ROWS[:1], "--max-failures", "5%")

    assert (code, facts["refused"], facts["not_applied"]) == (7, "too_many_failures", 1)


def test_the_command_asks_for_yes_where_kinds_change(feed, tmp_path):
    write_image(tmp_path / "a.png")
    feed([entry | {"image": "a.png"} for entry in ROWS])
    renamed = [entry | {"photo": "a.png"} for entry in ROWS]

    code, facts, reported = feed(renamed)

    assert (code, facts["refused"]) == (7, "kinds_changed")
    assert "--map image=COLUMN" in reported
    assert "--yes" in reported
    assert feed(renamed, "--yes")[0] == 0
