"""Alembic migrations, inside the wheel so that an installed Nightshift upgrades a database."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from psycopg2.errors import InsufficientPrivilege, LockNotAvailable
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DBAPIError, OperationalError

from nightshift.schema.errors import (
    ConfigurationError,
    ConflictError,
    DatabaseBehindError,
    ServiceUnavailableError,
)

__all__ = ["current_revision", "head_revision", "knows_revision", "require_current", "upgrade"]


#: What to do with a database of another version.
_NEWER = "take the version that made or upgraded it, or restore a backup of this one"


def upgrade(database_url: str, revision: str = "head") -> None:
    """Bring the database to `revision`; harmless where it already is there.

    Raises:
        ConflictError: Another process migrates, or a session holds a table for too long.
        ConfigurationError: The role does not own the tables.
        DatabaseBehindError: The database is at a revision that this program does not know.
    """
    try:
        command.upgrade(_config(database_url), revision)
    except DBAPIError as error:
        if isinstance(error.orig, LockNotAvailable):
            raise ConflictError(
                "the database cannot be upgraded now: another process upgrades it, or a session "
                "reads a table that has to be changed; end that session, or try again later"
            ) from error
        if isinstance(error.orig, InsufficientPrivilege):
            raise ConfigurationError(
                f"this role may not upgrade the database ({error.orig.diag.message_primary}); take "
                "the URL of the role that owns the tables, nightshift_migrate"
            ) from error
        raise
    except CommandError as error:
        raise DatabaseBehindError(
            f"this version of Nightshift cannot upgrade the database ({error}): {_NEWER}"
        ) from error


def head_revision() -> str:
    """The revision that this program needs."""
    head = ScriptDirectory.from_config(_config("")).get_current_head()
    assert head is not None
    return head


def knows_revision(revision: str) -> bool:
    """Tells whether this program can bring a database of that revision up to date."""
    script = ScriptDirectory.from_config(_config(""))
    return revision in {known.revision for known in script.walk_revisions()}


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
    if current is not None and not knows_revision(current):
        raise DatabaseBehindError(
            f"the database is at revision {current}, which this version of Nightshift does not "
            f"know: {_NEWER}"
        )
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
