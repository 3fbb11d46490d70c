"""Alembic's entry: one transaction, under a lock that only the owner of the tables can hold."""

from alembic import context
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

import nightshift.schema.count_tables
import nightshift.schema.image_tables
import nightshift.schema.index_tables
import nightshift.schema.item_tables
import nightshift.schema.ledger_tables
import nightshift.schema.load_tables
import nightshift.schema.process_tables
import nightshift.schema.query_tables
import nightshift.schema.result_tables
import nightshift.schema.score_tables
import nightshift.schema.token_tables  # noqa: F401 - registers its tables
from nightshift.schema.tables import Base

# As Alembic makes it, but before there is anything to lock.
_VERSION_TABLE = """
CREATE TABLE alembic_version
    (version_num varchar(32) NOT NULL CONSTRAINT alembic_version_pkc PRIMARY KEY)
"""
# What deploy/postgres/roles.sql grants on every new table.
_ONLY_READABLE = """
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'nightshift_write') THEN
        REVOKE ALL ON alembic_version FROM nightshift_write;
        GRANT SELECT ON alembic_version TO nightshift_write;
    END IF;
END
$$
"""


def run() -> None:
    """Run the migrations that the database lacks, one process at a time."""
    engine = create_engine(context.config.attributes["database_url"])
    with engine.connect() as connection:
        connection.execute(text("SET lock_timeout = '10s'"))
        connection.commit()
        _make_version_table(connection)
        # Two deployments that start together must not both create the same tables. Whoever can
        # only read the table cannot hold this lock, unlike an advisory one.
        connection.execute(text("LOCK TABLE alembic_version IN SHARE ROW EXCLUSIVE MODE"))
        connection.execute(text(_ONLY_READABLE))
        context.configure(connection=connection, target_metadata=Base.metadata)
        with context.begin_transaction():
            context.run_migrations()
        connection.commit()
    engine.dispose()


def _make_version_table(connection: Connection) -> None:
    if connection.scalar(text("SELECT to_regclass('alembic_version') IS NULL")):
        try:
            connection.execute(text(_VERSION_TABLE))
        except (IntegrityError, ProgrammingError):
            connection.rollback()
            # Another process was faster, or we may not: then there is still none.
            if connection.scalar(text("SELECT to_regclass('alembic_version') IS NULL")):
                raise
    connection.commit()


run()
