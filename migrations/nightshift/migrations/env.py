"""Alembic's entry: one online mode, lock and statement timeouts on."""

from alembic import context
from sqlalchemy import create_engine, text

import nightshift.schema.count_tables
import nightshift.schema.ledger_tables
import nightshift.schema.result_tables
import nightshift.schema.token_tables  # noqa: F401 - registers its tables
from nightshift.schema.tables import Base


def run() -> None:
    """Run the migrations that the database lacks, one process at a time."""
    engine = create_engine(context.config.attributes["database_url"])
    with engine.connect() as connection:
        connection.execute(text("SET lock_timeout = '10s'"))
        # Two deployments that start together must not both create the same tables.
        connection.execute(text("SELECT pg_advisory_lock(hashtext('nightshift.migrations'))"))
        connection.commit()
        context.configure(connection=connection, target_metadata=Base.metadata)
        with context.begin_transaction():
            context.run_migrations()
        connection.commit()
    engine.dispose()


run()
