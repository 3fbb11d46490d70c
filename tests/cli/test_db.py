"""The schema of the database is shown and upgraded; nothing runs on one that is behind."""

import json

import pytest
from click.testing import CliRunner
from sqlalchemy import create_engine, text

from nightshift.cli.main import main
from nightshift.migrations import head_revision


@pytest.fixture
def cli(tmp_path):
    def run(url: str, *words: str):
        environment = {"NIGHTSHIFT_DATABASE_URL": url, "NIGHTSHIFT_DATA_DIR": str(tmp_path)}
        return CliRunner(env=environment).invoke(main, words)

    return run


def test_an_empty_database_is_behind_until_it_is_upgraded(cli, empty_database_url):
    before = cli(empty_database_url, "db", "status", "--json")
    refused = cli(empty_database_url, "run", "list")
    upgraded = cli(empty_database_url, "db", "upgrade")
    second_upgrade = cli(empty_database_url, "db", "upgrade")
    after = cli(empty_database_url, "db", "status")

    assert (before.exit_code, json.loads(before.stdout)["behind"]) == (5, True)
    assert refused.exit_code == 5
    assert "nightshift db upgrade" in refused.stderr
    assert f"none to {head_revision()}" in upgraded.stdout
    assert "already" in second_upgrade.stdout
    assert (after.exit_code, head_revision() in after.stdout) == (0, True)


def test_a_database_that_cannot_be_reached_is_an_outage(cli):
    nowhere = "postgresql+psycopg2://nobody@127.0.0.1:1/nothing"

    for words in (["db", "status"], ["db", "upgrade"], ["run", "list"]):
        done = cli(nowhere, *words)
        assert done.exit_code == 6, done.output
        assert "check that it runs" in done.stderr


def test_without_a_stack_the_remedy_is_named(tmp_path):
    environment = {"NIGHTSHIFT_DATA_DIR": str(tmp_path)}

    done = CliRunner(env=environment).invoke(main, ["run", "list"])

    assert done.exit_code == 2
    assert "nightshift up" in done.stderr


def test_a_database_of_another_version_is_not_to_be_upgraded(cli, empty_database_url):
    cli(empty_database_url, "db", "upgrade")
    engine = create_engine(empty_database_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()

    for words in (["run", "list"], ["db", "upgrade"]):
        done = cli(empty_database_url, *words)

        assert done.exit_code == 5
        assert "9999" in done.stderr
        assert "take the version" in done.stderr
