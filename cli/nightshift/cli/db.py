"""`nightshift db upgrade | status`: the schema of the database."""

from pathlib import Path

import click

from nightshift.cli.echo import echo, echo_json
from nightshift.cli.options import data_dir_option, json_option, read_settings

__all__ = ["db"]


@click.group()
def db() -> None:
    """Migrate the database to the schema of this program."""


@db.command()
@data_dir_option
def upgrade(data_dir: Path | None) -> None:
    """Run the missing migrations; does nothing if none is missing.

    \b
    Example:
      nightshift db upgrade
    """
    from nightshift import migrations
    from nightshift.stack import resolve_database_url

    url = resolve_database_url(read_settings(data_dir))
    before = _revision(url)
    migrations.upgrade(url)
    after = _revision(url)
    if before == after:
        echo(f"the database is already at revision {after}")
    else:
        echo(f"the database went from revision {before or 'none'} to {after}")


@db.command()
@data_dir_option
@json_option
def status(data_dir: Path | None, as_json: bool) -> None:
    """Print the current and the needed revision; exits with 5 if the database is behind.

    \b
    Example:
      nightshift db status
    """
    from nightshift import migrations
    from nightshift.schema.errors import DatabaseBehindError
    from nightshift.stack import resolve_database_url

    current = _revision(resolve_database_url(read_settings(data_dir)))
    needed = migrations.head_revision()
    if as_json:
        echo_json({"current": current, "needed": needed, "behind": current != needed})
    else:
        echo(f"current {current or 'none'}")
        echo(f"needed  {needed}")
    if current != needed:
        raise SystemExit(DatabaseBehindError.exit_code)


def _revision(url: str) -> str | None:
    from nightshift import migrations
    from nightshift.stores.postgres.database import Database

    with Database(url) as database, database.begin() as connection:
        return migrations.current_revision(connection)
