"""`nightshift catalog import | list | show | failures`, and the group of `catalog_revisions`."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nightshift.cli import catalog_revisions
from nightshift.cli.echo import echo, echo_json
from nightshift.cli.options import data_dir_option, json_option, read_settings
from nightshift.schema.errors import InputError

if TYPE_CHECKING:
    from nightshift.producers.row_checks import Verify

__all__ = ["catalog"]


@click.group()
def catalog() -> None:
    """Import catalogues of images and texts, list them, and compare their revisions."""


for _command in (
    catalog_revisions.history,
    catalog_revisions.diff,
    catalog_revisions.rollback,
    catalog_revisions.prune,
):
    catalog.add_command(_command)


@catalog.command(name="import")
@click.argument("name")
@click.argument("source")
@click.option(
    "--map",
    "pairs",
    metavar="FIELD=COLUMN",
    multiple=True,
    help="The source's name for id, text, image or parts; may be repeated. Every row must have the "
    "column.  [default: the same names]",
)
@click.option(
    "--verify",
    type=click.Choice(["changed", "always", "never"]),
    default="changed",
    show_default=True,
    help="Decode local images now, so that a broken image fails here and not during embedding: "
    "those that are new or whose size or time of change differs, all, or none.",
)
@click.option("--no-verify", "verify", flag_value="never", help="The same as --verify never.")
@click.option(
    "--prune",
    is_flag=True,
    help="Mark items as gone that came from SOURCE and that it no longer lists, if it could be "
    "read completely. Items of other sources stay.",
)
@click.option(
    "--max-gone",
    metavar="N|P%",
    default="10%",
    show_default=True,
    help="With --prune: refuse the import if more items of SOURCE would be marked as gone. Of few "
    "items, one may go whatever its share.",
)
@click.option(
    "--accept-unreadable",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="With --prune: accept this number of rows without a readable id.",
)
@click.option(
    "--max-failures",
    metavar="N|P%",
    help="Refuse the import if more rows fail; exit with 0 if some fail, but not more.  [default: "
    "never refuse, exit with 7 if a row fails]",
)
@click.option(
    "--yes",
    is_flag=True,
    help="Accept an import that changes more than 10% of the items between text, image and both. "
    "Otherwise it is refused, because a column may have been renamed.",
)
@data_dir_option
@json_option
def import_(
    name: str,
    source: str,
    pairs: tuple[str, ...],
    verify: "Verify",
    prune: bool,
    max_gone: str,
    accept_unreadable: int,
    max_failures: str | None,
    yes: bool,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Read SOURCE into the catalogue NAME; its other items stay.

    SOURCE is a folder of images (captions in a .txt of the same name), a .jsonl, .csv, .tsv or
    .parquet file, a WebDataset .tar, a folder of such files, or a quoted pattern; a path or any
    fsspec URL. Fields are id, text and image (a path relative to the file, or a URL); other fields
    are kept as metadata. A bad row is recorded with its reason, and the others are imported. The
    catalogue changes in one step at the end; if a limit is exceeded, the import is refused and
    nothing changes.

    \b
    Examples:
      nightshift catalog import shop photos/
      nightshift catalog import shop products.csv --map text=title --map image=photo_path
      nightshift catalog import shop 's3://bucket/shards/*.tar' --json
      nightshift catalog import shop feed.csv --prune --max-gone 5% --max-failures 1%

    Exits with 0 if every row was accepted. Exits with 7 if rows failed (more than --max-failures,
    if given), the import was refused, a file could not be read completely, or --prune was not
    carried out.
    """
    from nightshift.api import connect
    from nightshift.cli.import_text import explain_import, import_facts, import_progress
    from nightshift.producers.catalog_import import ImportLimits, Limit
    from nightshift.producers.sources import FieldNames

    mapping = FieldNames.parse(pairs)
    limits = ImportLimits(
        prune=prune,
        max_gone=Limit.parse(max_gone),
        accept_unreadable=accept_unreadable,
        max_failures=None if max_failures is None else Limit.parse(max_failures),
        change_kinds=yes,
    )
    with connect(settings=read_settings(data_dir)) as nightshift:
        with import_progress(name, quiet=as_json) as progress:
            summary = nightshift.import_catalog(
                name,
                source,
                mapping=mapping,
                verify=verify,
                limits=limits,
                progress=progress,
            )
        _echo_import(name, import_facts(summary, limits), as_json)
        explain_import(nightshift.database, name, summary)
    if not summary.is_clean(limits):
        sys.exit(InputError.exit_code)


def _echo_import(name: str, facts: dict[str, object], as_json: bool) -> None:
    """Print the facts of an import: as JSON, or its counts in a line."""
    if as_json:
        echo_json(facts, indent=None)
        return
    revision = facts.pop("revision", None)
    counts = ((what, n) for what, n in facts.items() if type(n) is int)
    numbers = ", ".join(f"{n:,} {what.replace('_', ' ')}" for what, n in counts)
    echo(f"{name}: {numbers}" + (f"; revision {revision}" if revision else ""))


@catalog.command(name="list")
@data_dir_option
@json_option
def list_(data_dir: Path | None, as_json: bool) -> None:
    """List the catalogues.

    \b
    Example:
      nightshift catalog list
    """
    from nightshift.api import connect
    from nightshift.cli.console import make_console, make_table

    with connect(settings=read_settings(data_dir)) as nightshift:
        catalogs = nightshift.catalogs()
    if as_json:
        echo_json(catalogs)
        return
    table = make_table(
        "catalogue",
        "revision",
        "items",
        "gone",
        "text",
        "image",
        "both",
        "indexes",
        right="revision items gone text image both",
    )
    for row in catalogs:
        counts = (row.live, row.gone, row.text_only, row.image_only, row.text_and_image)
        indexes = ", ".join(row.indexes) or "–"
        table.add_row(row.name, str(row.revision), *(f"{count:,}" for count in counts), indexes)
    make_console().print(table)


@catalog.command()
@click.argument("name")
@data_dir_option
@json_option
def show(name: str, data_dir: Path | None, as_json: bool) -> None:
    """Show the item counts of the catalogue NAME, and its last imports.

    \b
    Example:
      nightshift catalog show shop
    """
    from nightshift.api import connect
    from nightshift.cli.console import make_console, make_table

    with connect(settings=read_settings(data_dir)) as nightshift:
        details = nightshift.catalog(name)
    facts = details.facts
    if as_json:
        echo_json({**asdict(facts), "imports": list(details.imports)})
        return
    console = make_console()
    echo(
        f"{facts.name}, revision {facts.revision}: {facts.live:,} items "
        f"({facts.text_only:,} of text, {facts.image_only:,} of image, "
        f"{facts.text_and_image:,} of both), {facts.gone:,} gone; "
        f"indexes: {', '.join(facts.indexes) or 'none'}"
    )
    counts = ("read", "accepted", "failed", "unchanged", "not_applied")
    table = make_table("import", "begun", "ended", *counts, "source", right=" ".join(counts))
    for row in details.imports:
        table.add_row(
            str(row.id),
            f"{row.started_at.astimezone():%Y-%m-%d %H:%M:%S}",
            f"{row.finished_at.astimezone():%H:%M:%S}" if row.finished_at else "–",
            *(f"{getattr(row, count):,}" for count in counts),
            row.source,
        )
    console.print(table)


@catalog.command()
@click.argument("name")
@click.option("--import", "import_id", type=int, help="Number of the import.  [default: the last]")
@click.option("--reason", help="Only this reason, such as image_unreadable.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="Maximum number of rows; 0 for all.",
)
@data_dir_option
@json_option
def failures(
    name: str,
    import_id: int | None,
    reason: str | None,
    limit: int,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """List the rows that an import into the catalogue NAME refused, with reasons.

    \b
    Examples:
      nightshift catalog failures shop
      nightshift catalog failures shop --reason image_unreadable --limit 0 --json
    """
    from nightshift.api import connect
    from nightshift.cli.console import make_console, make_table

    with connect(settings=read_settings(data_dir)) as nightshift:
        rows = nightshift.import_failures(
            name, import_id=import_id, reason=reason, limit=limit or None
        )
    if as_json:
        echo_json(rows)
        return
    table = make_table("kind", "subject", "reason", "message")
    for failure in rows:
        table.add_row(failure.kind.value, failure.subject, failure.reason, failure.message)
    make_console().print(table)
