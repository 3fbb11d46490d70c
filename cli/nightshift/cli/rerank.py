"""`nightshift rerank`: coarse search, fine scoring and final ranking of a file of queries."""

from pathlib import Path
from typing import Any

import click

from nightshift.cli.echo import echo, echo_json
from nightshift.cli.options import data_dir_option, json_option, pixel_options, read_settings

__all__ = ["rerank"]

_PARTS = click.Choice(["image", "text", "text,image"])


@click.command()
@click.argument("catalog")
@click.option("--queries", required=True, help="File of queries: JSONL, CSV, Parquet, a folder, …")
@click.option("--qrels", help="Judgements (TREC, BEIR or JSONL), for `nightshift evaluate`.")
@click.option("--index", help="Which index to search.  [default: the newest ready]")
@click.option(
    "--method",
    type=click.Choice(["retllm", "freeret", "indexmllm"]),
    default="retllm",
    show_default=True,
    help="How pairs are scored and ordered.",
)
@click.option("--scorer", required=True, help="hf:MODEL, a hub name or a local directory.")
@click.option(
    "--top-k",
    type=click.IntRange(1, 16384),
    help="Candidates a query that are scored.  [default: retllm 5, freeret 50, indexmllm 100]",
)
@click.option("--query-parts", type=_PARTS, help="What models see of a query.  [default: all]")
@click.option(
    "--item-parts",
    type=_PARTS,
    help="What the scorer sees of an item.  [default: what the index's embedder saw]",
)
@click.option(
    "--preset",
    type=click.Choice(["default", "paper", "code"]),
    help="retllm as we have it, as its paper has it, or as its authors' code; indexmllm as its "
    "authors' code. Options given beside it win.  [default: default]",
)
@click.option(
    "--score",
    type=click.Choice(["margin_2way", "p_true_full", "number", "listwise"]),
    help="Read the score from the two labels' logits, the positive one's probability among all "
    "words, a number that the model writes, or its choice from a numbered list of texts.  "
    "[default: the preset's; margin_2way]",
)
@click.option(
    "--list-orders",
    type=click.IntRange(1, 9),
    default=1,
    show_default=True,
    help="Orders in which each list is asked about; scores are their mean.",
)
@click.option(
    "--framing",
    help="Which of the method's prompts, such as freeret_yes_no, or landmark, generic or product "
    "of indexmllm.  [default: the method's own]",
)
@click.option(
    "--debias",
    type=click.Choice(["none", "swap"]),
    default="none",
    show_default=True,
    help="swap asks each pair twice, once with the answers exchanged, and takes the mean.",
)
@click.option(
    "--subtract-prior",
    is_flag=True,
    help="Take off what the question gets without query and candidate, so that a probability of "
    "one half is neutral; changes no order.",
)
@click.option(
    "--symmetrise",
    is_flag=True,
    help="Ask about each pair twice, once with the sides exchanged, and take the mean.",
)
@click.option(
    "--lambda",
    "fusion",
    type=click.FloatRange(0, 1),
    help="Weight of the coarse score in the final one.  [default: indexmllm 0.5, else 0]",
)
@click.option(
    "--fusion-scale",
    type=click.Choice(["raw", "minmax", "logit"]),
    default="raw",
    show_default=True,
    help="Add both scores up as they are, each from 0 to 1 among a query's candidates, or as "
    "log-odds.",
)
@click.option(
    "--enhancement",
    metavar="WORDS",
    help="Visual enhancement: on, off, a layer to force it at, or its parameters by name, such as "
    "alpha=0.2,gamma=0.8 on top of the preset's.  [default: retllm on, else off]",
)
@click.option(
    "--memory",
    type=click.Choice(["query", "candidate", "both", "all"]),
    help="What the enhancement looks at again: images of one side or of both, or the whole "
    "prompt.  [default: both; preset code all]",
)
@click.option(
    "--quantum",
    type=click.FloatRange(0, 1, max_open=True),
    help="Scores within one step of this size tie, and entropy decides; 0 never ties.  "
    "[default: retllm 0.01, else 0]",
)
@click.option(
    "--tie-guard/--no-tie-guard",
    default=None,
    help="Whether entropy decides ties above one half only.  [default: yes; preset code no]",
)
@click.option(
    "--compare",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="Share of the queries also scored without the enhancement, to see what it changed.",
)
@click.option(
    "--codec",
    default="none",
    show_default=True,
    help="Show candidates as this codec leaves their visual tokens; see `nightshift tokens`.",
)
@click.option("--code-queries", is_flag=True, help="Show queries through the codec too.")
@pixel_options
@click.option(
    "--priority", type=click.IntRange(0, 9), default=5, show_default=True, help="0 goes first."
)
@click.option(
    "--build-index",
    is_flag=True,
    help="Embed the items that the index lacks first, as a stage of this run.",
)
@click.option("--wait", is_flag=True, help="Come back when the run has ended.")
@click.option("--dry-run", is_flag=True, help="Say what it would cost, and keep nothing.")
@data_dir_option
@json_option
def rerank(
    *,
    wait: bool,
    dry_run: bool,
    data_dir: Path | None,
    as_json: bool,
    **fields: Any,  # noqa: ANN401 - the fields of RerankRequest
) -> None:
    """Find and re-rank items of CATALOG for every query of a file.

    \b
    Examples:
      nightshift rerank shop --queries queries.jsonl --scorer hf:Qwen/Qwen2.5-VL-7B-Instruct --wait
      nightshift rerank shop --queries queries.jsonl --scorer ./my-mllm --method freeret
      nightshift rerank shop --queries queries.jsonl --scorer ./my-mllm --preset paper
      nightshift rerank shop --queries photos/ --scorer ./my-mllm --method indexmllm
      nightshift rerank shop --queries queries.jsonl --scorer ./my-mllm --memory query
      nightshift rerank shop --queries queries.jsonl --scorer ./my-mllm --top-k 20 --dry-run

    Exits with 7 when rows of the file failed, or, with --wait, queries or pairs of the run; with 1
    when the run failed or was cancelled.
    """
    from nightshift.api import RerankRequest, RunEnd, connect
    from nightshift.cli.dry_run import show_preview
    from nightshift.cli.run_end import follow_run, json_facts, print_and_exit

    request = RerankRequest(**fields)
    with connect(settings=read_settings(data_dir)) as nightshift:
        if dry_run:
            show_preview(nightshift.preview_rerank(request), as_json=as_json)
            return
        planned = nightshift.rerank(request)
        if planned.left_out:
            echo(f"of the queries, {planned.left_out}", err=True)
        if planned.not_indexed:
            echo(
                f"{planned.not_indexed:,} items of the catalogue are not in the index as they are "
                "now and cannot be found: --build-index embeds them first",
                err=True,
            )
        if not as_json:
            echo(
                f"run {planned.run_id}: {planned.n_queries} queries over index "
                f"{planned.index!r} version {planned.version}, at most {planned.max_pairs} pairs",
                err=True,
            )
        end = RunEnd(run_id=planned.run_id, reasons=planned.reasons)
        if wait:
            end = follow_run(nightshift, planned.run_id, quiet=as_json)
    if as_json:
        ids = {
            "run_id": planned.run_id,
            "queries": planned.n_queries,
            "not_indexed": planned.not_indexed,
        }
        echo_json({**ids, **json_facts(end)}, indent=None)
    print_and_exit(end, quiet=as_json, hint=f"see `nightshift results {planned.run_id}`")
