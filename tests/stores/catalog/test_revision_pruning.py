"""Pruning a catalogue leaves every revision that stays as it was."""

import json

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from nightshift.api import connect
from nightshift.cli.main import main
from nightshift.producers.catalog_import import ImportLimits, Limit, import_catalog
from nightshift.schema.errors import NotFoundError
from nightshift.stores.catalog import revision_pruning
from nightshift.stores.catalog.revision_pruning import prune_revisions
from nightshift.stores.catalog.rollback import rollback
from tests.stores.ledger_helpers import add_index_run

#: By revision, the texts of the items.
REVISIONS = (
    {"a": "teal", "b": "ochre", "c": "mauve"},
    {"a": "teal", "b": "umber", "c": "mauve"},
    {"a": "teal", "b": "umber"},
    {"a": "teal", "b": "ochre", "d": "mauve"},
)


@pytest.fixture
def shop(database, tmp_path):
    """A catalogue of four revisions, replaced two hours ago."""
    for items in REVISIONS:
        import_items(database, tmp_path, items)
    make_old(database)
    return "shop"


def import_items(database, folder, items):
    source = folder / "items.jsonl"
    source.write_text("".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in items.items()))
    limits = ImportLimits(prune=True, max_gone=Limit.parse("100%"))
    import_catalog(database, "shop", str(source), limits=limits)


def make_old(database):
    with database.begin() as connection:
        connection.execute(text("UPDATE revision SET created_at = now() - interval '2 hours'"))


def state(database, number):
    """The items of a revision with their texts."""
    with database.begin() as connection:
        rows = connection.execute(
            text("""
            SELECT external_id, parts -> 0 ->> 'text' AS text FROM item
            JOIN catalog ON catalog.id = catalog_id AND catalog.name = 'shop'
            JOIN item_version v ON v.item_id = item.id JOIN content ON content.id = content_id
            WHERE :n BETWEEN first_revision AND last_revision
            """),
            {"n": number},
        )
        return {row.external_id: row.text for row in rows}


def rows(database):
    with database.begin() as connection:
        return {
            table: connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
            for table in ("revision", "item", "item_version", "content")
        }


def test_the_newest_revisions_stay_as_they_were_and_what_others_had_goes(database, shop):
    assert rows(database) == {"revision": 4, "item": 4, "item_version": 6, "content": 4}

    report = prune_revisions(database, shop, keep=1)

    assert (report.revisions, report.kept) == ([1, 2, 3], [4])
    assert (report.versions, report.contents) == (3, 1)
    assert report.bytes > 100
    assert state(database, 4) == REVISIONS[3]
    assert rows(database) == {"revision": 1, "item": 3, "item_version": 3, "content": 3}


def test_a_revision_that_a_run_reads_stays(database, shop):
    run_id = add_index_run(database)
    with database.begin() as connection:
        connection.execute(
            text("""
            UPDATE run SET revision = 2,
                catalog_id = (SELECT id FROM catalog WHERE name = 'shop')
            WHERE id = :run
            """),
            {"run": run_id},
        )

    report = prune_revisions(database, shop, keep=1)

    assert (report.revisions, report.kept) == ([1, 3], [2, 4])
    assert state(database, 2) == REVISIONS[1]
    assert state(database, 4) == REVISIONS[3]


def test_a_revision_that_was_replaced_lately_stays(database, shop, tmp_path):
    import_items(database, tmp_path, {"a": "teal"})

    assert prune_revisions(database, shop, keep=1).kept == [4, 5]


def test_a_dry_run_deletes_nothing(database, shop):
    before = rows(database)

    report = prune_revisions(database, shop, keep=2, dry_run=True)

    assert (report.revisions, report.versions) == ([1, 2], 2)
    assert rows(database) == before


def test_a_pruning_that_was_killed_is_finished_by_the_next(database, shop, monkeypatch):
    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(revision_pruning, "_delete_uncovered", kill)
        with pytest.raises(KeyboardInterrupt):
            prune_revisions(database, shop, keep=1)
    assert state(database, 4) == REVISIONS[3]

    report = prune_revisions(database, shop, keep=1)

    assert (report.revisions, report.versions) == ([], 3)
    assert rows(database) == {"revision": 1, "item": 3, "item_version": 3, "content": 3}


def test_imports_and_rollbacks_go_on_after_a_pruning(database, shop, tmp_path):
    prune_revisions(database, shop, keep=2)
    import_items(database, tmp_path, REVISIONS[0])
    with database.begin() as connection:
        rolled = rollback(connection, shop, 3)

    assert rolled.number == 6
    assert state(database, 5) == REVISIONS[0]
    assert state(database, 6) == REVISIONS[2]


def test_the_contents_of_other_catalogues_stay(database, shop, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text('{"id": "x", "text": "umber"}\n')
    import_catalog(database, "other", str(other))

    report = prune_revisions(database, shop, keep=1)

    assert report.contents == 0
    assert rows(database)["content"] == 4


def test_a_catalogue_must_exist(database):
    with pytest.raises(NotFoundError, match="no catalogue 'none'"):
        prune_revisions(database, "none", keep=1)


def test_the_command_names_the_revisions(settings, database_url, shop):
    cli = CliRunner(env={"NIGHTSHIFT_DATABASE_URL": database_url})

    shown = cli.invoke(main, ["catalog", "prune", shop, "--keep", "2", "--dry-run"])
    with connect(settings=settings) as nightshift:
        report = nightshift.prune_catalog(shop, keep=2)
    done = cli.invoke(main, ["catalog", "prune", shop, "--keep", "1", "--json"])

    assert "revisions 1, 2 of shop" in shown.stdout
    assert report.revisions == [1, 2]
    assert json.loads(done.stdout)["revisions"] == [3]
