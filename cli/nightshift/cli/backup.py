"""`nightshift backup` and `nightshift restore`: checked copies of an embedded stack."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from nightshift.cli.echo import echo, echo_json
from nightshift.cli.embedded_stack import open_stack
from nightshift.cli.options import data_dir_option, json_option, read_settings
from nightshift.schema.errors import ConfigurationError

if TYPE_CHECKING:
    from nightshift.schema.settings import Settings
    from nightshift.stack.backup import BackupManifest

__all__ = ["backup", "restore"]


@click.command(short_help="Back up the running stack.")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@data_dir_option
@json_option
def backup(directory: Path, data_dir: Path | None, as_json: bool) -> None:
    """Write a backup of the running embedded stack to DIRECTORY, which must be empty.

    It holds the database, the vectors, blobs/, tokens/ and the demo's files with their checksums,
    and no password. Runs continue meanwhile. It does not hold images, models and token stores
    outside the data directory. An interrupted backup has no manifest.json and cannot be restored.

    \b
    Examples:
      nightshift backup /backups/monday
      nightshift backup /backups/monday --data-dir ./night
    """
    from nightshift.stack.backup import back_up

    settings = read_settings(data_dir)
    _require_embedded(settings)
    manifest = back_up(open_stack(settings.data_dir), directory, _print_step)
    _print_summary(manifest, f"backed up to {directory}", as_json=as_json)


@click.command(short_help="Create a stack from a backup.")
@click.argument("directory", type=click.Path(file_okay=False, exists=True, path_type=Path))
@data_dir_option
@json_option
def restore(directory: Path, data_dir: Path | None, as_json: bool) -> None:
    """Create a data directory from the backup in DIRECTORY; start it with `nightshift up`.

    Every file is first checked against its checksum. The data directory must be empty or must not
    exist. The new stack gets its own ports and passwords.

    \b
    Examples:
      nightshift restore /backups/monday
      nightshift restore /backups/monday --data-dir ./night
    """
    from nightshift.stack.backup import restore as restore_backup

    settings = read_settings(data_dir)
    manifest = restore_backup(directory, settings.data_dir, _print_step)
    start = f"nightshift up --data-dir {data_dir}" if data_dir else "nightshift up"
    done = f"restored into {settings.data_dir}; start it: {start}"
    _print_summary(manifest, done, as_json=as_json)


def _require_embedded(settings: "Settings") -> None:
    for service in ("database_url", "milvus_uri"):
        if getattr(settings, service):
            raise ConfigurationError(
                f"NIGHTSHIFT_{service.upper()} names a service outside the embedded stack: "
                "back that service up with its own tools, or unset the variable"
            )


def _print_step(message: str) -> None:
    echo(f"• {message}", err=True)


def _print_summary(manifest: "BackupManifest", summary: str, *, as_json: bool) -> None:
    facts = {
        "made_at": manifest.made_at.isoformat(),
        "files": len(manifest.files),
        "bytes": manifest.n_bytes,
        "vectors": sum(vectors.rows for vectors in manifest.vectors),
    }
    if as_json:
        echo_json(facts)
    else:
        counts = ", ".join(f"{facts[name]:,} {name}" for name in ("files", "bytes", "vectors"))
        echo(f"{counts} {summary}")
