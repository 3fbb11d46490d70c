"""`nightshift rerank`: coarse search, fine scoring and final ranking of a file of queries."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from nightshift.cli.echo import echo, echo_json
from nightshift.cli.options import data_dir_option, json_option, pixel_options, read_settings

if TYPE_CHECKING:
    from nightshift.schema.params import FusionScale, MethodName, ScoreName

__all__ = ["rerank"]

_PARTS = click.Choice(["image", "text", "text,image"])


@click.command()
@click.argument("catalog")
@click.option("--queries", required=True, help="File of queries: JSONL, CSV, Parquet, a folder, …")
@click.option("--qrels", help="Judgements (TREC, BEIR or JSONL), for `nightshift evaluate`.")
@click.option("--index", "index_name", help="Which index to search.  [default: the newest ready]")
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
@click.option("--wait", is_flag=True, help="Come back when the run has ended.")
@click.option("--dry-run", is_flag=True, help="Say what it would cost, and keep nothing.")
@data_dir_option
@json_option
def rerank(
    catalog: str,
    queries: str,
    qrels: str | None,
    index_name: str | None,
    method: "MethodName",
    scorer: str,
    top_k: int | None,
    query_parts: str | None,
    item_parts: str | None,
    preset: Literal["default", "paper", "code"] | None,
    score: "ScoreName | None",
    list_orders: int,
    framing: str | None,
    debias: Literal["none", "swap"],
    subtract_prior: bool,
    symmetrise: bool,
    fusion: float | None,
    fusion_scale: "FusionScale",
    enhancement: str | None,
    memory: str | None,
    quantum: float | None,
    tie_guard: bool | None,
    compare: float,
    codec: str,
    code_queries: bool,
    min_pixels: int | None,
    max_pixels: int | None,
    long_side: int | None,
    priority: int,
    wait: bool,
    dry_run: bool,
    data_dir: Path | None,
    as_json: bool,
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
    from nightshift.api.services import open_database
    from nightshift.cli.dry_run import show_estimate
    from nightshift.cli.enhancement import read_enhancement
    from nightshift.cli.planning import index_parts, query_set_parts
    from nightshift.cli.run_end import RunEnd, follow_run
    from nightshift.models.checkpoints.describe import describe_scorer, describe_vision
    from nightshift.models.preflight.loadable import require_loadable
    from nightshift.producers.plan_rerank import plan_rerank
    from nightshift.producers.plan_tokens import token_set_of
    from nightshift.producers.query_import import import_queries
    from nightshift.schema.params import RerankParams, ScorerParams
    from nightshift.scoring.codecs import parse_codec
    from nightshift.scoring.methods.registry import METHODS
    from nightshift.stores.files.blobs import BlobStore

    settings = read_settings(data_dir)
    chosen = METHODS[method].preset(preset)
    score = score or chosen.score
    min_pixels = min_pixels or chosen.min_pixels
    max_pixels = max_pixels or chosen.max_pixels
    long_side = long_side or chosen.long_side
    words = ",".join(filter(None, (enhancement, memory and f"memory={memory}")))
    with open_database(settings) as database:
        coding = parse_codec(codec)
        vision = describe_vision(
            scorer, min_pixels=min_pixels, max_pixels=max_pixels, long_side=long_side
        )
        token_set = token_set_of(database, catalog, vision, coding)
        params = RerankParams(
            top_k=top_k or chosen.depth,
            query_parts=query_parts or "text,image",
            item_parts=item_parts or index_parts(database, catalog, index_name),
            quantum=chosen.quantum if quantum is None else quantum,
            tie_guard=chosen.tie_guard if tie_guard is None else tie_guard,
            fusion=chosen.fusion if fusion is None else fusion,
            fusion_scale=fusion_scale,
            compare=compare,
            scorer=ScorerParams(
                method=method,
                preset=preset or ("default" if "default" in chosen.presets else None),
                score=score,
                list_orders=list_orders,
                framing=framing or chosen.framing_for(score).name,
                debias=debias,
                subtract_prior=subtract_prior,
                symmetrise=symmetrise,
                codec=str(coding),
                codebook=(token_set and token_set.codebook_digest) or "",
                code_queries=code_queries and not coding.lossless,
                min_pixels=min_pixels,
                max_pixels=max_pixels,
                long_side=long_side,
                enhancement=(
                    read_enhancement(words, chosen.enhancement) if words else chosen.enhancement
                ),
            ),
        )
        facts = describe_scorer(scorer, params.scorer)
        require_loadable(facts, params.scorer)
        if dry_run:
            show_estimate(
                database,
                catalog,
                queries,
                qrels=qrels,
                image_roots=settings.image_roots,
                index_name=index_name,
                scorer=facts,
                params=params,
                query_parts=query_parts,
                as_json=as_json,
            )
            return
        imported = import_queries(
            database,
            queries,
            qrels=qrels,
            blobs=BlobStore(settings.data_dir / "blobs"),
            image_roots=settings.image_roots,
        )
        if imported.left_out:
            echo(f"of the queries, {imported.left_out}", err=True)
        if query_parts is None:
            with database.begin() as connection:
                query_parts = query_set_parts(connection, imported.query_set_id)
        planned = plan_rerank(
            database,
            catalog,
            index_name=index_name,
            query_set_id=imported.query_set_id,
            scorer=facts,
            params=params.model_copy(update={"query_parts": query_parts}),
            token_set_id=token_set.id if token_set else None,
            priority=priority,
        )
        if not as_json:
            echo(
                f"run {planned.run_id}: {imported.n_queries} queries over index "
                f"{planned.index!r} version {planned.version}, at most {planned.n_units} pairs",
                err=True,
            )
        end = RunEnd(run_id=planned.run_id, reasons=imported.reasons)
        if wait:
            end = follow_run(database, planned.run_id, quiet=as_json)
    if as_json:
        ids = {"run_id": planned.run_id, "queries": imported.n_queries}
        echo_json({**ids, **end.json_facts()}, indent=None)
    end.print_and_exit(quiet=as_json, hint=f"see `nightshift results {planned.run_id}`")
