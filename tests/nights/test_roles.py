"""Three roles on a real Postgres: one migrates, one writes and alters nothing, one reads."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psycopg2
import pytest
from psycopg2.errors import InsufficientPrivilege
from sqlalchemy import URL, make_url

from nightshift.migrations import require_current, upgrade
from nightshift.schema.errors import ConfigurationError
from nightshift.schema.settings import Settings
from nightshift.stack import Stack
from tests.compose import make_roles
from tests.nights.night import Night

ROLES = ("migrate", "write", "read")

Run = Callable[[str, str], list[tuple[object, ...]]]


@pytest.fixture(scope="module")
def urls(stack: Stack) -> Iterator[dict[str, URL]]:
    """A migrated database of a name of its own, by role."""
    admin = make_url(stack.urls().database_url)
    name = f"roles_{uuid4().hex[:8]}"
    passwords = {role: f"{role}-{uuid4().hex}" for role in ROLES}
    _run(admin, f"CREATE DATABASE {name}")
    make_roles(
        admin.set(database=name),
        {f"POSTGRES_{role.upper()}_PASSWORD": word for role, word in passwords.items()},
    )
    results = {
        role: admin.set(database=name, username=f"nightshift_{role}", password=passwords[role])
        for role in ROLES
    }
    upgrade(results["migrate"].render_as_string(hide_password=False))
    yield results
    _run(admin, f"DROP DATABASE {name} WITH (FORCE)")
    for role in ROLES:
        _run(admin, f"DROP ROLE nightshift_{role}")


@pytest.fixture
def run(urls: dict[str, URL]) -> Run:
    return lambda role, statement: _run(urls[role], statement)


def _run(url: URL, statement: str) -> list[tuple[object, ...]]:
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    connection = psycopg2.connect(plain)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


@pytest.fixture(scope="module")
def night(
    stack: Stack, urls: dict[str, URL], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Night]:
    """Dispatcher, worker and commands that have no more than the write role."""
    logs = tmp_path_factory.mktemp("roles") / "logs"
    logs.mkdir()
    night = Night(
        settings=Settings(
            _env_file=None,
            data_dir=stack.data_dir,
            database_url=urls["write"].render_as_string(hide_password=False),
            redis_url=stack.urls().redis_url,
            milvus_uri=stack.urls().milvus_uri,
            milvus_token=stack.urls().milvus_token,
        ),
        logs=logs,
    )
    night.dispatcher()
    night.worker()
    yield night
    night.stop()


@pytest.mark.night
def test_the_write_role_does_a_whole_night_and_the_read_role_sees_it(
    night: Night, urls: dict[str, URL], run: Run, scenes: Path, embedder: str, scorer: str
):
    night.cli("catalog", "import", "scenes", str(scenes / "items.jsonl"), "--json")
    night.cli("index", "build", "scenes", "--embedder", embedder, "--wait", "--json")
    queries = str(scenes / "queries-text.jsonl")
    done = night.cli("rerank", "scenes", "--queries", queries, "--scorer", scorer, "--top-k", "2",
                     "--wait", "--json")  # fmt: skip
    run_id = json.loads(done.stdout)["run_id"]
    url = urls["read"].render_as_string(hide_password=False)

    read = subprocess.run(
        [sys.executable, "-m", "nightshift.cli.main", "results", str(run_id), "--format", "jsonl"],
        env={**os.environ, "NIGHTSHIFT_DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )

    assert read.returncode == 0, read.stderr
    assert run("read", "SELECT count(*) FROM v_ranking") == [(24,)]


@pytest.mark.parametrize(
    "statement",
    [
        *(
            "CREATE TABLE x (n int)",
            "CREATE SCHEMA x",
            "CREATE VIEW x AS SELECT 1",
            "CREATE ROLE x",
        ),
        *("ALTER TABLE item ADD x int", "DROP TABLE item", "TRUNCATE item", "DROP VIEW v_ranking"),
        *("CREATE INDEX ON item (id)", "ALTER ROLE nightshift_read SUPERUSER"),
        *("DROP FUNCTION make_run_partitions", "COPY item TO PROGRAM 'cat'"),
        *("COPY item TO '/tmp/x'", "SET ROLE nightshift_migrate"),
    ],
)
@pytest.mark.parametrize("role", ["write", "read"])
def test_neither_of_the_lesser_roles_can_alter_anything(run: Run, role: str, statement: str):
    with pytest.raises(InsufficientPrivilege):
        run(role, statement)


@pytest.mark.parametrize(
    "statement",
    [
        *("INSERT INTO catalog (name) VALUES ('x')", "UPDATE run SET state = 'done'"),
        *("DELETE FROM item", "SELECT nextval('run_id_seq')", "SELECT make_run_partitions(1)"),
        *("CREATE TEMP TABLE x (n int)", "SELECT FROM run FOR UPDATE", "ANALYZE item; LOCK run"),
    ],
)
def test_the_read_role_only_reads(run: Run, statement: str):
    assert run("read", "SELECT count(*) FROM catalog")
    with pytest.raises(InsufficientPrivilege):
        run("read", statement)


#: What Postgres lets everybody do until it is taken away.
OPEN_TO_ALL = [
    *("SELECT lo_create(0)", "SELECT lo_creat(-1)", "SELECT lo_from_bytea(0, 'x')"),
    *("SELECT lo_import('/etc/passwd')", "SELECT lo_put(1, 0, 'x')", "SELECT lo_unlink(1)"),
    *("SELECT lo_open(1, 131072)", "SELECT lowrite(0, 'x')", "SELECT lo_truncate64(0, 1)"),
    *("SELECT pg_advisory_lock(hashtext('x'))", "SELECT pg_advisory_lock(1, 2)"),
    *("SELECT pg_advisory_lock_shared(1)", "SELECT pg_try_advisory_lock(1)"),
    *("SELECT pg_try_advisory_xact_lock(1, 2)", "SELECT pg_advisory_xact_lock_shared(1)"),
    *("SELECT pg_logical_emit_message(false, 'x', 'y')", "SELECT pg_notify('x', 'y')"),
]
#: What only owners and superusers can do, or a right on the table that was not granted.
CLOSED = [
    *("SELECT pg_read_file('/etc/passwd')", "SELECT pg_ls_dir('/')", "COPY run FROM PROGRAM 'id'"),
    *("SET SESSION AUTHORIZATION nightshift_migrate", "CREATE PUBLICATION x FOR TABLE run"),
    *("SELECT setval('run_id_seq', 1)", "ALTER SEQUENCE run_id_seq RESTART", "CHECKPOINT"),
    *("SELECT 1; LOCK alembic_version IN SHARE MODE", "UPDATE alembic_version SET version_num = 1"),
    *("DELETE FROM alembic_version", "INSERT INTO alembic_version VALUES ('x')"),
    *("SELECT FROM alembic_version FOR SHARE", "ALTER VIEW v_ranking RENAME TO x"),
    "CREATE TRIGGER x BEFORE UPDATE ON run EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    *("CREATE FUNCTION x() RETURNS int LANGUAGE sql AS 'SELECT 1'", "COMMENT ON TABLE run IS 'x'"),
    *("ALTER TABLE run DISABLE TRIGGER ALL", "TRUNCATE run CASCADE", "SELECT * FROM pg_authid"),
    "ALTER DEFAULT PRIVILEGES FOR ROLE nightshift_migrate GRANT ALL ON TABLES TO PUBLIC",
]


@pytest.mark.parametrize("statement", [*OPEN_TO_ALL, *CLOSED, "SELECT pg_advisory_xact_lock(1)"])
def test_the_read_role_holds_no_lock_and_leaves_nothing_behind(run: Run, statement: str):
    with pytest.raises(InsufficientPrivilege):
        run("read", statement)


@pytest.mark.parametrize("statement", [*OPEN_TO_ALL, *CLOSED])
def test_the_write_role_fills_tables_and_does_nothing_else(run: Run, statement: str):
    with pytest.raises(InsufficientPrivilege):
        run("write", statement)


@pytest.mark.parametrize("role", ["write", "read"])
def test_every_role_may_ask_at_which_revision_the_database_is(urls: dict[str, URL], role: str):
    require_current(urls[role].render_as_string(hide_password=False))


@pytest.mark.parametrize("role", ["write", "read"])
def test_neither_of_the_lesser_roles_can_hold_migrations_up_by_their_lock(
    urls: dict[str, URL], role: str
):
    """They lock the migrations table as far as they may, and migrations go on."""
    plain = urls[role].set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg2.connect(plain) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM alembic_version; LOCK alembic_version IN ACCESS SHARE MODE")

        upgrade(urls["migrate"].render_as_string(hide_password=False))


@pytest.mark.parametrize("role", ["write", "read"])
def test_an_error_names_the_role_that_may_migrate_to_one_that_may_not(
    urls: dict[str, URL], role: str
):
    with pytest.raises(ConfigurationError, match="nightshift_migrate"):
        upgrade(urls[role].render_as_string(hide_password=False))


def test_the_roles_of_an_older_database_are_brought_up_to_date(
    stack: Stack, urls: dict[str, URL], run: Run
):
    """By the script, run once more; a migration alone closes the table of revisions."""
    admin = make_url(stack.urls().database_url).set(database=urls["read"].database)
    as_it_was = "GRANT ALL ON alembic_version TO nightshift_write"
    _run(admin, f"{as_it_was}; GRANT EXECUTE ON FUNCTION lo_create(oid) TO PUBLIC")
    run("read", "SELECT lo_create(0)")

    upgrade(urls["migrate"].render_as_string(hide_password=False))
    with pytest.raises(InsufficientPrivilege):
        run("write", "DELETE FROM alembic_version")
    _run(admin, as_it_was)
    words = {role: str(urls[role].password) for role in ROLES}
    make_roles(admin, {f"POSTGRES_{role.upper()}_PASSWORD": words[role] for role in ROLES})

    with pytest.raises(InsufficientPrivilege):
        run("read", "SELECT lo_create(0)")
    with pytest.raises(InsufficientPrivilege):
        run("write", "DELETE FROM alembic_version")


def test_partitions_are_made_for_runs_only(run: Run):
    with pytest.raises(psycopg2.errors.RaiseException, match="there is no run"):
        run("write", "SELECT make_run_partitions(987654321)")
