"""`nightshift index build | list`: embed a catalogue."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nightshift.cli.echo import echo, echo_json
from nightshift.cli.options import data_dir_option, json_option, read_settings

if TYPE_CHECKING:
    from nightshift.schema.models import ModelFacts
    from nightshift.stores.postgres.database import Database

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
@click.option("--rebuild", is_flag=True, help="Embed everything anew, in a new version.")
@click.option("--wait", is_flag=True, help="Come back when the run has ended.")
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
    from nightshift.api.services import open_services
    from nightshift.cli.planning import default_item_parts
    from nightshift.cli.run_end import RunEnd, follow_run
    from nightshift.models.preflight.loadable import require_loadable
    from nightshift.producers.plan_index import plan_index

    settings = read_settings(data_dir)
    with open_services(settings) as services:
        parts = parts or default_item_parts(services.database, catalog)
        facts = _describe(services.database, catalog, embedder)
        require_loadable(facts)
        planned = plan_index(
            services.database,
            services.vectors,
            catalog,
            embedder=facts,
            parts=parts,
            name=name,
            index_type=index_type,
            rebuild=rebuild,
        )
        if not as_json:
            echo(
                f"run {planned.run_id}: {planned.n_units} items to embed in {planned.n_jobs} jobs "
                f"for index {planned.index!r} version {planned.version}",
                err=True,
            )
        end = RunEnd(run_id=planned.run_id)
        if wait:
            end = follow_run(services.database, planned.run_id, quiet=as_json)
    if as_json:
        ids = {"run_id": planned.run_id, "index": planned.index, "version": planned.version}
        echo_json({**ids, "items": planned.n_units, **end.json_facts()}, indent=None)
    end.print_and_exit(quiet=as_json)


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
        found = list_indexes(connection)
    if as_json:
        echo_json(found)
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
    for one in found:
        table.add_row(
            one.catalog,
            one.index,
            str(one.version),
            one.state.value,
            f"{one.items:,}",
            one.parts,
            str(one.dim),
            "–" if one.top_share is None else f"{one.top_share:.0%}",
            one.index_type,
            one.embedder,
        )
    make_console().print(table)


def _describe(database: "Database", catalog: str, embedder: str) -> "ModelFacts":
    """The embedder; one that sees items through a codec, with the codebook that it has by now."""
    from nightshift.models.checkpoints.describe import describe_embedder, describe_embedder_vision
    from nightshift.models.checkpoints.spec import parse_spec
    from nightshift.producers.plan_tokens import token_set_of
    from nightshift.scoring.codecs import parse_codec

    vision = describe_embedder_vision(embedder)
    spec = parse_spec(embedder)
    if vision is None or spec.embedding is None:
        return describe_embedder(embedder)
    token_set = token_set_of(database, catalog, vision, parse_codec(spec.embedding.codec))
    codebook = (token_set and token_set.codebook_digest) or ""
    params = spec.embedding.model_copy(update={"codebook": codebook})
    return describe_embedder(str(replace(spec, embedding=params)))
