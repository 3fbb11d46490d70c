"""`nightshift catalog import | list | show | failures`: what there is to search."""

import sys
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import click

from nightshift.cli.echo import echo, echo_json
from nightshift.cli.options import data_dir_option, json_option, read_settings
from nightshift.schema.errors import InputError

__all__ = ["catalog"]


@click.group()
def catalog() -> None:
    """Import catalogues of images and texts, and look at them."""


@catalog.command(name="import")
@click.argument("name")
@click.argument("source")
@click.option(
    "--map",
    "pairs",
    metavar="FIELD=COLUMN",
    multiple=True,
    help="Where the source calls id, text, image or parts something else; several times if need "
    "be. A column that is named here must be there in every row.  [default: the same names]",
)
@click.option(
    "--verify/--no-verify",
    default=True,
    show_default=True,
    help="Decode local images now, so that a broken one fails here and not when it is embedded.",
)
@click.option(
    "--prune",
    is_flag=True,
    help="Mark items as gone that SOURCE brought and no longer names, if it could be read to its "
    "end. Items of other sources stay.",
)
@click.option(
    "--max-gone",
    metavar="N|P%",
    default="10%",
    show_default=True,
    help="With --prune: refuse the import where more items of SOURCE would go. One of a few may "
    "go, whatever its share.",
)
@click.option(
    "--accept-unreadable",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="With --prune: rows without a readable id that do not stop it.",
)
@click.option(
    "--max-failures",
    metavar="N|P%",
    help="Refuse the import where more rows fail, and exit with 0 where some fail and no more than "
    "that.  [default: refuse none, exit with 7 where one fails]",
)
@click.option(
    "--yes",
    is_flag=True,
    help="Let more than 10% of the items change between text, image and both; else such an import "
    "is refused, for a column may have been renamed.",
)
@data_dir_option
@json_option
def import_(
    name: str,
    source: str,
    pairs: tuple[str, ...],
    verify: bool,
    prune: bool,
    max_gone: str,
    accept_unreadable: int,
    max_failures: str | None,
    yes: bool,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Read SOURCE into the catalogue NAME; what is in it already is left alone.

    SOURCE is a folder of images (captions in a .txt of the same name), a .jsonl, .csv, .tsv or
    .parquet file, a WebDataset .tar, a folder of such files, or a quoted pattern; a path or any
    fsspec URL. Fields are id, text and image (a path, beside the file, or a URL); the rest is kept
    as metadata. A bad row is recorded with its reason, and the others go through. The catalogue
    changes in one step at the end; where a limit is passed, the import is refused and nothing
    changes.

    \b
    Examples:
      nightshift catalog import shop photos/
      nightshift catalog import shop products.csv --map text=title --map image=photo_path
      nightshift catalog import shop 's3://bucket/shards/*.tar' --json
      nightshift catalog import shop feed.csv --prune --max-gone 5% --max-failures 1%

    Exits with 0 when every row was taken, with 7 when some failed (more than --max-failures, where
    that is given), the import was refused, a file could not be read to its end, or --prune was not
    carried out.
    """
    from nightshift.api.services import open_database
    from nightshift.cli.import_text import explain_import, import_facts, import_progress
    from nightshift.producers.catalog_import import ImportLimits, Limit, import_catalog
    from nightshift.producers.sources import FieldNames
    from nightshift.stores.files.blobs import BlobStore

    settings = read_settings(data_dir)
    mapping = FieldNames.parse(pairs)
    limits = ImportLimits(
        prune=prune,
        max_gone=Limit.parse(max_gone),
        accept_unreadable=accept_unreadable,
        max_failures=None if max_failures is None else Limit.parse(max_failures),
        change_kinds=yes,
    )
    with open_database(settings) as database:
        with import_progress(name, quiet=as_json) as progress:
            summary = import_catalog(
                database,
                name,
                source,
                mapping=mapping,
                verify=verify,
                blobs=BlobStore(settings.data_dir / "blobs"),
                image_roots=settings.image_roots,
                limits=limits,
                progress=progress,
            )
        facts = import_facts(summary, limits)
        if as_json:
            echo_json(facts, indent=None)
        else:
            counts = ((what, n) for what, n in facts.items() if type(n) is int)
            echo(f"{name}: " + ", ".join(f"{n:,} {what.replace('_', ' ')}" for what, n in counts))
        explain_import(database, name, summary)
    if not summary.is_clean(limits):
        sys.exit(InputError.exit_code)


@catalog.command(name="list")
@data_dir_option
@json_option
def list_(data_dir: Path | None, as_json: bool) -> None:
    """List the catalogues.

    \b
    Example:
      nightshift catalog list
    """
    from nightshift.api.services import open_database
    from nightshift.cli.console import make_console, make_table
    from nightshift.stores.catalog.catalog_reports import list_catalogs

    with (
        open_database(read_settings(data_dir)) as database,
        database.begin() as connection,
    ):
        found = list_catalogs(connection)
    if as_json:
        echo_json(found)
        return
    table = make_table(
        "catalogue",
        "items",
        "gone",
        "text",
        "image",
        "both",
        "indexes",
        right="items gone text image both",
    )
    for one in found:
        kinds = (one.live, one.gone, one.text_only, one.image_only, one.text_and_image)
        table.add_row(one.name, *(f"{count:,}" for count in kinds), ", ".join(one.indexes) or "–")
    make_console().print(table)


@catalog.command()
@click.argument("name")
@data_dir_option
@json_option
def show(name: str, data_dir: Path | None, as_json: bool) -> None:
    """Show what the catalogue NAME holds, and its last imports.

    \b
    Example:
      nightshift catalog show shop
    """
    from nightshift.api.services import open_database
    from nightshift.cli.console import make_console, make_table
    from nightshift.stores.catalog.catalog_reports import imports_of, list_catalogs

    with (
        open_database(read_settings(data_dir)) as database,
        database.begin() as connection,
    ):
        (facts,) = list_catalogs(connection, name)
        imports = imports_of(connection, name)
    if as_json:
        echo_json({**asdict(facts), "imports": imports})
        return
    console = make_console()
    echo(
        f"{facts.name}: {facts.live:,} items ({facts.text_only:,} of text, {facts.image_only:,} of "
        f"image, {facts.text_and_image:,} of both), {facts.gone:,} gone; "
        f"indexes: {', '.join(facts.indexes) or 'none'}"
    )
    counts = ("read", "accepted", "failed", "unchanged", "not_applied")
    table = make_table("import", "begun", "ended", *counts, "source", right=" ".join(counts))
    for one in imports:
        table.add_row(
            str(one.id),
            f"{one.started_at.astimezone():%Y-%m-%d %H:%M:%S}",
            f"{one.finished_at.astimezone():%H:%M:%S}" if one.finished_at else "–",
            *(f"{getattr(one, count):,}" for count in counts),
            one.source,
        )
    console.print(table)


@catalog.command()
@click.argument("name")
@click.option("--import", "import_id", type=int, help="Number of an import.  [default: the last]")
@click.option("--reason", help="Only this reason, such as image_unreadable.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="Rows at most; 0 for all.",
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
    """List what an import into the catalogue NAME could not take, and why.

    \b
    Examples:
      nightshift catalog failures shop
      nightshift catalog failures shop --reason image_unreadable --limit 0 --json
    """
    from nightshift.api.services import open_database
    from nightshift.cli.console import make_console, make_table
    from nightshift.stores.catalog.catalog_reports import import_of
    from nightshift.stores.catalog.import_failures import failures_of_import

    with (
        open_database(read_settings(data_dir)) as database,
        database.begin() as connection,
    ):
        import_id = import_of(connection, name, import_id).id
        found = failures_of_import(connection, import_id, reason=reason)
        listed = list(islice(found, min(limit, sys.maxsize) or None))
    if as_json:
        echo_json(listed)
        return
    table = make_table("kind", "subject", "reason", "message")
    for failure in listed:
        table.add_row(failure.kind.value, failure.subject, failure.reason, failure.message)
    make_console().print(table)
