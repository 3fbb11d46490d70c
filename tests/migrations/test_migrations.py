"""An empty database becomes what the tables say, and a database behind is told apart."""

import subprocess
import sys

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, text

import nightshift.schema.count_tables
import nightshift.schema.ledger_tables
import nightshift.schema.token_tables  # noqa: F401 - registers its tables
from nightshift.migrations import _config, current_revision, head_revision, require_current, upgrade
from nightshift.schema.errors import DatabaseBehindError
from nightshift.schema.result_tables import PARTITIONED_TABLES
from nightshift.schema.tables import Base

VIEWS = {"v_ranking", "v_run_progress", "v_calibration", "v_tally"}


def read(url, query, **params):
    engine = create_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(text(query), params).all()
    engine.dispose()
    return rows


def differences_from_the_tables(url):
    engine = create_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found = compare_metadata(context, Base.metadata)
    engine.dispose()
    return found


def test_migrations_make_exactly_the_tables_that_the_code_declares(database_url):
    assert differences_from_the_tables(database_url) == []


def test_downgrading_and_upgrading_again_ends_at_the_same_tables(empty_database_url):
    upgrade(empty_database_url)
    command.downgrade(_config(empty_database_url), "base")
    left = read(
        empty_database_url,
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace",
    )

    upgrade(empty_database_url)

    assert {row.relname for row in left} <= {"alembic_version", "alembic_version_pkc"}
    assert differences_from_the_tables(empty_database_url) == []


def test_upgrading_what_is_current_changes_nothing(database_url):
    upgrade(database_url)

    require_current(database_url)


def test_two_deployments_that_upgrade_at_once_do_not_collide(empty_database_url):
    code = f"from nightshift.migrations import upgrade; upgrade({empty_database_url!r})"

    deployments = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]

    assert [deployment.wait() for deployment in deployments] == [0, 0]
    require_current(empty_database_url)


def test_an_empty_database_is_behind_and_the_error_names_the_remedy(empty_database_url):
    with pytest.raises(DatabaseBehindError, match="nightshift db upgrade"):
        require_current(empty_database_url)


def test_a_half_migrated_database_is_behind(empty_database_url):
    upgrade(empty_database_url, "0001")

    with pytest.raises(DatabaseBehindError, match=rf"0001.*{head_revision()}"):
        require_current(empty_database_url)


def test_the_current_revision_is_the_head_after_an_upgrade(database_url):
    engine = create_engine(database_url)
    with engine.connect() as connection:
        assert current_revision(connection) == head_revision()
    engine.dispose()


def test_what_a_run_fills_is_partitioned_by_run(database_url):
    rows = read(
        database_url,
        "SELECT partrelid::regclass::text AS name, pg_get_partkeydef(partrelid) AS key "
        "FROM pg_partitioned_table",
    )

    assert {row.name: row.key for row in rows} == dict.fromkeys(PARTITIONED_TABLES, "LIST (run_id)")


def test_every_table_and_view_says_what_it_holds(database_url):
    rows = read(
        database_url,
        "SELECT relname, obj_description(oid, 'pg_class') AS comment FROM pg_class "
        "WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v') "
        "AND relname <> 'alembic_version'",
    )

    assert {row.relname for row in rows} == {*Base.metadata.tables, *VIEWS}
    assert [row.relname for row in rows if not row.comment] == []


def test_the_comments_in_the_database_are_those_of_the_code(database_url):
    rows = read(
        database_url,
        "SELECT attrelid::regclass::text AS name, attname, "
        "col_description(attrelid, attnum) AS comment FROM pg_attribute "
        "JOIN pg_class c ON c.oid = attrelid WHERE relnamespace = 'public'::regnamespace "
        "AND relkind IN ('r', 'p') AND attnum > 0",
    )
    stored = {(row.name.strip('"'), row.attname): row.comment for row in rows}

    for table in Base.metadata.tables.values():
        for column in table.columns:
            assert stored[table.name, column.name] == column.comment


def test_every_column_of_every_table_and_view_says_what_it_holds(database_url):
    rows = read(
        database_url,
        "SELECT relname, attname, col_description(attrelid, attnum) AS comment FROM pg_attribute "
        "JOIN pg_class c ON c.oid = attrelid WHERE relnamespace = 'public'::regnamespace "
        "AND relkind IN ('r', 'p', 'v') AND attnum > 0 AND NOT attisdropped "
        "AND relname <> 'alembic_version'",
    )

    assert {row.relname for row in rows} == {*Base.metadata.tables, *VIEWS}
    assert [f"{row.relname}.{row.attname}" for row in rows if not row.comment] == []
