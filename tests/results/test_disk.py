"""`nightshift disk` says what takes room, and adds up to what Postgres takes in all."""

import json

from click.testing import CliRunner
from sqlalchemy import text

from nightshift.cli.main import main
from nightshift.results.disk import disk_usage
from nightshift.stores.postgres.table_sizes import database_bytes, table_bytes
from tests.results.ranked import add_reference_run


def test_every_table_has_a_kind_and_the_kinds_add_up_to_the_database(database, tmp_path):
    add_reference_run(database)

    usage = disk_usage(database, tmp_path, embedded_milvus=False)

    with database.begin() as connection:
        total, tables = database_bytes(connection), table_bytes(connection)
    sizes = {part.what: part.bytes for part in usage.parts if part.place == "postgres"}
    assert sum(sizes.values()) == total
    assert sizes["other"] == total - sum(tables.values()) + sum(
        size for name, size in tables.items() if name in ("alembic_version", "lease", "worker")
    )
    assert min(sizes[what] for what in ("items", "jobs", "candidates", "scores", "lists")) > 0


def test_partitions_are_counted_with_their_table(database):
    with database.begin() as connection:
        before = table_bytes(connection)
    add_reference_run(database)

    with database.begin() as connection:
        after = table_bytes(connection)
        assert after["candidate"] > before["candidate"]
        assert not any("_r1" in name for name in after)


def test_vectors_of_a_server_are_computed_and_files_are_measured(database, tmp_path):
    add_reference_run(database)
    with database.begin() as connection:
        connection.execute(text("UPDATE \"index\" SET state = 'ready'"))
    (tmp_path / "blobs" / "ab").mkdir(parents=True)
    (tmp_path / "blobs" / "ab" / "file").write_bytes(b"x" * 100_000)
    (tmp_path / "milvus").mkdir()
    (tmp_path / "milvus" / "segment").write_bytes(b"x" * 50_000)

    def parts(*, embedded):
        usage = disk_usage(database, tmp_path, embedded_milvus=embedded)
        return {part.what: part for part in usage.parts}

    assert parts(embedded=True)["images of other files"].bytes >= 100_000
    assert parts(embedded=True)["vectors"].bytes >= 50_000
    assert parts(embedded=True)["vectors"].measured
    assert not parts(embedded=False)["vectors"].measured
    assert "logs" not in parts(embedded=True)


def test_the_command_prints_sizes_and_what_frees_them(database, database_url, tmp_path):
    add_reference_run(database)
    cli = CliRunner(
        env={"NIGHTSHIFT_DATABASE_URL": database_url, "NIGHTSHIFT_DATA_DIR": str(tmp_path)}
    )

    shown, facts = cli.invoke(main, ["disk"]), cli.invoke(main, ["disk", "--json"])

    assert "nightshift run prune" in shown.stdout
    assert " in all" in shown.stdout
    usage = json.loads(facts.stdout)
    assert usage["bytes"] == sum(part["bytes"] for part in usage["parts"])
