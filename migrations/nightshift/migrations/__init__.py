"""Alembic migrations, inside the wheel so that an installed Nightshift upgrades a database."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import OperationalError

from nightshift.schema.errors import DatabaseBehindError, ServiceUnavailableError

__all__ = ["current_revision", "head_revision", "require_current", "upgrade"]


def upgrade(database_url: str, revision: str = "head") -> None:
    """Bring the database to `revision`; harmless where it already is there."""
    command.upgrade(_config(database_url), revision)


def head_revision() -> str:
    """The revision that this program needs."""
    head = ScriptDirectory.from_config(_config("")).get_current_head()
    assert head is not None
    return head


def current_revision(connection: Connection) -> str | None:
    """The revision that the database is at; None where it is empty."""
    return MigrationContext.configure(connection).get_current_revision()


def require_current(database_url: str) -> None:
    """Check that the database is at the revision this program needs.

    Raises:
        DatabaseBehindError: With both revisions and the command that mends it.
        ServiceUnavailableError: When Postgres cannot be reached.
    """
    # A frozen server takes connections and says nothing.
    engine = create_engine(database_url, connect_args={"connect_timeout": 10})
    try:
        with engine.connect() as connection:
            current = current_revision(connection)
    except OperationalError as error:
        raise ServiceUnavailableError(
            f"Postgres cannot be reached: {error.orig}; check that it runs and that the URL is "
            "right (`nightshift status`)",
            "postgres",
        ) from error
    finally:
        engine.dispose()
    if current != head_revision():
        raise DatabaseBehindError(
            f"the database is at revision {current or 'none'}, this program needs "
            f"{head_revision()}: run `nightshift db upgrade`"
        )


def _config(database_url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["database_url"] = database_url
    return config
