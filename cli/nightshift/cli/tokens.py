"""`nightshift tokens build | list | verify | prune`: visual tokens made once, read later."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from nightshift.cli.echo import echo, echo_json
from nightshift.cli.options import data_dir_option, json_option, pixel_options, read_settings

__all__ = ["tokens"]


@click.group()
def tokens() -> None:
    """Keep what a scorer's vision tower makes of images, so that it is made once."""


@tokens.command()
@click.argument("catalog")
@click.option("--scorer", required=True, help="hf:MODEL, as `nightshift rerank` will have it.")
@click.option(
    "--codec",
    default="none",
    show_default=True,
    help="REDUCE, QUANTISE or REDUCE+QUANTISE: sample2, pool2, kmeans(K), group(G); none, int8, "
    "pq(M,BITS). Only none gives the very scores that pixels give.",
)
@click.option(
    "--store",
    help="Folder or fsspec URL for the shards, one that every worker reaches.  [default: in the "
    "data directory]",
)
@pixel_options
@click.option("--plan", is_flag=True, help="Print what each codec would take, and do nothing.")
@click.option("--max-bytes", type=click.IntRange(min=1), help="Refuse to add more than this.")
@click.option(
    "--priority", type=click.IntRange(0, 9), default=5, show_default=True, help="0 goes first."
)
@click.option("--wait", is_flag=True, help="Come back when the run has ended.")
@data_dir_option
@json_option
def build(
    *,
    plan: bool,
    wait: bool,
    data_dir: Path | None,
    as_json: bool,
    **fields: Any,  # noqa: ANN401 - the fields of TokenRequest
) -> None:
    """Enqueue jobs that store the visual tokens of CATALOG; of new and changed images only.

    \b
    Examples:
      nightshift tokens build shop --scorer hf:Qwen/Qwen2.5-VL-7B-Instruct --plan
      nightshift tokens build shop --scorer ./my-mllm --codec 'pq(448,8)' --wait
      nightshift tokens build shop --scorer ./my-mllm --store s3://bucket/tokens

    With --wait, exits with 7 when items failed, with 1 when the run failed or was cancelled.
    """
    from nightshift.api import RunEnd, TokenRequest, connect
    from nightshift.api.token_building import require_room
    from nightshift.cli.run_end import follow_run, json_facts, print_and_exit
    from nightshift.cli.token_text import show_plan

    request = TokenRequest(**fields)
    with connect(settings=read_settings(data_dir)) as nightshift:
        if plan:
            projections = nightshift.compare_codecs(request)
            show_plan(projections, as_json=as_json)
            require_room(request, projections[0])
            return
        planned = nightshift.build_tokens(request)
        if not as_json:
            echo(
                f"run {planned.run_id}: {planned.items} items to see, {planned.codec} tokens go to "
                f"{planned.address}",
                err=True,
            )
        end = RunEnd(run_id=planned.run_id)
        if wait:
            end = follow_run(nightshift, planned.run_id, quiet=as_json)
    if as_json:
        echo_json({**asdict(planned), **json_facts(end)}, indent=None)
    print_and_exit(end, quiet=as_json)


@tokens.command(name="list")
@data_dir_option
@json_option
def list_(data_dir: Path | None, as_json: bool) -> None:
    """List what is stored: for which catalogue and scorer, under which codec, how large.

    \b
    Example:
      nightshift tokens list
    """
    from nightshift.api.services import open_database
    from nightshift.cli.console import make_console, make_table
    from nightshift.stores.tokens.token_reports import list_sets

    with open_database(read_settings(data_dir)) as database, database.begin() as connection:
        token_sets = list_sets(connection)
    if as_json:
        echo_json(token_sets)
        return
    table = make_table(
        "set", "catalogue", "codec", "items", "stored", "bytes", "an image", "shards", "scorer",
        "store", right="set items stored bytes shards an image",
    )  # fmt: skip
    for token_set in token_sets:
        table.add_row(
            str(token_set.id),
            token_set.catalog,
            token_set.codec,
            f"{token_set.items:,}",
            f"{token_set.stored:,}",
            f"{token_set.bytes:,}",
            "–" if token_set.bytes_per_image is None else f"{token_set.bytes_per_image:,.0f}",
            f"{token_set.shards:,}",
            token_set.scorer,
            token_set.address,
        )
    make_console().print(table)


@tokens.command()
@click.option("--forget", is_flag=True, help="Forget what is lost; the next build makes it again.")
@data_dir_option
@json_option
def verify(forget: bool, data_dir: Path | None, as_json: bool) -> None:
    """Read every shard and compare it with what was written; names each that is damaged.

    Exits with 7 where one is damaged or gone, unless it was forgotten.

    \b
    Examples:
      nightshift tokens verify
      nightshift tokens verify --forget
    """
    from nightshift.api.services import open_database
    from nightshift.schema.errors import InputError
    from nightshift.stores.tokens.token_reports import verify_shards

    with open_database(read_settings(data_dir)) as database:
        report = verify_shards(database, forget=forget)
    if as_json:
        echo_json(asdict(report), indent=None)
    else:
        for damage in report.damaged:
            echo(f"damaged  {damage}")
        echo(f"{report.shards:,} shards read, {len(report.damaged):,} damaged")
        if report.forgotten:
            echo(f"{report.forgotten:,} contents forgotten: build their tokens again")
    if report.damaged and not forget:
        raise SystemExit(InputError.exit_code)


@tokens.command()
@click.option(
    "--set",
    "named",
    type=int,
    multiple=True,
    help="Delete this whole set instead, needed or not; `tokens list` shows its number.",
)
@click.option("--dry-run", is_flag=True, help="Say what would go, and do nothing.")
@data_dir_option
@json_option
def prune(named: tuple[int, ...], dry_run: bool, data_dir: Path | None, as_json: bool) -> None:
    """Delete stored tokens that no item needs any more, and files that were left over.

    A shard goes when none of its images is that of a live item: they were deleted or changed.
    Catalogues are left alone while an unfinished run of theirs reads tokens.

    \b
    Examples:
      nightshift tokens prune --dry-run
      nightshift tokens prune
      nightshift tokens prune --set 3
    """
    from nightshift.api.services import open_database
    from nightshift.cli.token_text import print_pruned, prune_progress
    from nightshift.stores.tokens.token_pruning import prune_tokens

    with (
        open_database(read_settings(data_dir)) as database,
        prune_progress(quiet=as_json) as report_progress,
    ):
        report = prune_tokens(
            database, named=named, dry_run=dry_run, report_progress=report_progress
        )
    if as_json:
        totals = {"dry_run": dry_run, "images": report.images, "bytes": report.bytes}
        echo_json({**totals, **asdict(report)}, indent=None)
    else:
        print_pruned(report, dry_run=dry_run)
