"""`nightshift index build | list | prune`: embed a catalogue."""

from pathlib import Path

import click

from nightshift.cli.echo import echo, echo_json
from nightshift.cli.options import data_dir_option, json_option, read_settings

__all__ = ["index"]


@click.group()
def index() -> None:
    """Embed catalogues into searchable indexes."""


@index.command()
@click.argument("catalog")
@click.option(
    "--embedder",
    required=True,
    help="open_clip:ARCH/PRETRAINED (hub tag or local file), open_clip:DIRECTORY, hf:MODEL, or "
    "freeret:MODEL for a scorer's model.",
)
@click.option("--name", default="default", show_default=True, help="Name of the index.")
@click.option(
    "--parts",
    type=click.Choice(["image", "text", "text,image"]),
    help="What of an item the embedder sees.  [default: image where items have one, else text]",
)
@click.option(
    "--index-type",
    default="FLAT",
    show_default=True,
    help="Milvus index: FLAT is exact, HNSW faster on millions of items.",
)
@click.option("--rebuild", is_flag=True, help="Embed all items again, in a new version.")
@click.option("--wait", is_flag=True, help="Return when the run has ended.")
@data_dir_option
@json_option
def build(
    catalog: str,
    embedder: str,
    name: str,
    parts: str | None,
    index_type: str,
    rebuild: bool,
    wait: bool,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Enqueue embed jobs for what is missing from an index of CATALOG.

    \b
    Examples:
      nightshift index build shop --embedder open_clip:ViT-B-32/laion2b_s34b_b79k --wait
      nightshift index build shop --embedder hf:google/siglip2-base-patch16-224 --parts text,image

    With --wait, exits with 7 when items failed, with 1 when the run failed or was cancelled.
    """
    from nightshift.api import IndexRequest, RunEnd, connect
    from nightshift.cli.run_end import follow_run, json_facts, print_and_exit

    request = IndexRequest(
        catalog=catalog,
        embedder=embedder,
        name=name,
        parts=parts,
        index_type=index_type,
        rebuild=rebuild,
    )
    with connect(settings=read_settings(data_dir)) as nightshift:
        planned = nightshift.build_index(request)
        if not as_json:
            echo(
                f"run {planned.run_id}: {planned.n_units} items to embed in {planned.n_jobs} jobs "
                f"for index {planned.index!r} version {planned.version}",
                err=True,
            )
        end = RunEnd(run_id=planned.run_id)
        if wait:
            end = follow_run(nightshift, planned.run_id, quiet=as_json)
    if as_json:
        ids = {"run_id": planned.run_id, "index": planned.index, "version": planned.version}
        echo_json({**ids, "items": planned.n_units, **json_facts(end)}, indent=None)
    print_and_exit(end, quiet=as_json)


@index.command(name="list")
@data_dir_option
@json_option
def list_(data_dir: Path | None, as_json: bool) -> None:
    """List the indexes, every version of each.

    `top-5` is how much of a vector its five largest dimensions carry, by squared length.

    \b
    Example:
      nightshift index list
    """
    from nightshift.api.services import open_database
    from nightshift.cli.console import make_console, make_table
    from nightshift.stores.index.indexes import list_indexes

    with open_database(read_settings(data_dir)) as database, database.begin() as connection:
        summaries = list_indexes(connection)
    if as_json:
        echo_json(summaries)
        return
    headings = (
        "catalogue",
        "index",
        "version",
        "state",
        "items",
        "sees",
        "dim",
        "top-5",
        "type",
        "embedder",
    )
    table = make_table(*headings, right="version items dim top-5")
    for summary in summaries:
        table.add_row(
            summary.catalog,
            summary.index,
            str(summary.version),
            summary.state.value,
            f"{summary.items:,}",
            summary.parts,
            str(summary.dim),
            "–" if summary.top_share is None else f"{summary.top_share:.0%}",
            summary.index_type,
            summary.embedder,
        )
    make_console().print(table)


@index.command()
@click.option(
    "--keep",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of each index, so many of the newest retired versions stay.",
)
@click.option("--catalog", help="Only indexes of this catalogue.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and do nothing.")
@data_dir_option
@json_option
def prune(
    keep: int, catalog: str | None, dry_run: bool, data_dir: Path | None, as_json: bool
) -> None:
    """Delete retired index versions, their vectors in Milvus included.

    A version is retired when a newer one of its name is ready. One that a re-ranking run searched
    stays as long as that run.

    \b
    Examples:
      nightshift index prune --dry-run
      nightshift index prune --catalog shop --keep 1
    """
    from nightshift.api import connect
    from nightshift.cli.prune_text import print_pruned_indexes, prune_progress, report_json

    with (
        connect(settings=read_settings(data_dir)) as nightshift,
        prune_progress("indexes deleted", quiet=as_json) as progress,
    ):
        report = nightshift.prune_indexes(
            keep=keep, catalog=catalog, dry_run=dry_run, progress=progress
        )
    if as_json:
        echo_json(report_json(report, dry_run=dry_run), indent=None)
    else:
        print_pruned_indexes(report, dry_run=dry_run)
