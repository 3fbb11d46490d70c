"""`nightshift disk`: sizes by what is held."""

from pathlib import Path

import click

from nightshift.cli.echo import echo, echo_json
from nightshift.cli.options import data_dir_option, json_option, read_settings

__all__ = ["disk"]


@click.command()
@data_dir_option
@json_option
def disk(data_dir: Path | None, as_json: bool) -> None:
    """Show what takes room in Postgres, in Milvus and in the data directory, and what frees it.

    Sizes of tables include their indexes. A size with ~ is computed: that of vectors on a Milvus
    server, from their number.

    \b
    Examples:
      nightshift disk
      nightshift disk --json
    """
    from nightshift.api import connect
    from nightshift.cli.console import make_console, make_table
    from nightshift.cli.formats import format_bytes

    with connect(settings=read_settings(data_dir)) as nightshift:
        usage = nightshift.disk()
    if as_json:
        echo_json({"bytes": usage.bytes, "parts": list(usage.parts)})
        return
    table = make_table("where", "what", "size", "freed by", right="size")
    for part in usage.parts:
        size = format_bytes(part.bytes)
        table.add_row(part.place, part.what, size if part.measured else f"~{size}", part.remedy)
    make_console().print(table)
    echo(f"{format_bytes(usage.bytes)} in all")
