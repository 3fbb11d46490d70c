"""`nightshift rerank --dry-run`: the cost of a run that is not begun."""

from dataclasses import asdict

from nightshift.api.reranking import RerankPreview
from nightshift.cli.echo import echo, echo_json
from nightshift.cli.formats import format_reasons
from nightshift.schema.errors import InputError

__all__ = ["show_preview"]


def show_preview(preview: RerankPreview, *, as_json: bool) -> None:
    """Print what a run would cost; exit with 7 where rows of the file of queries failed.

    Args:
        preview: The run that was not begun.
        as_json: Print one JSON object.
    """
    queries = preview.queries
    if as_json:
        failed = {"failed": queries.failed, "reasons": dict(queries.reasons)}
        echo_json({**asdict(preview.estimate), **failed}, indent=None)
    else:
        _print(preview)
    if queries.failed:
        raise SystemExit(InputError.exit_code)


def _print(preview: RerankPreview) -> None:
    estimate, params, queries = preview.estimate, preview.params, preview.queries
    share = estimate.reused / estimate.pairs if estimate.pairs else 0.0
    echo(f"items      {estimate.items}")
    if estimate.not_indexed:
        echo(
            f"           {estimate.not_indexed} items of the newest revision are not in the index "
            "as they are now: --build-index embeds them first"
        )
    echo(f"queries    {estimate.queries}, {params.query_parts} shown")
    echo(f"pairs      {estimate.pairs} at depth {params.top_k}, {params.item_parts} shown")
    echo(f"groups     {estimate.groups} at most, sharing one side of their prompt")
    about = "" if estimate.reused_exactly else "about "
    echo(f"reused     {about}{estimate.reused} pairs ({share:.0%}) scored by earlier runs")
    if not estimate.reused_exactly:
        echo("           the index was not searched for all of them, or has changed since")
    if estimate.seconds is None:
        echo("time       unknown until these models have run here once")
    else:
        echo(f"time       {estimate.seconds:.0f} s of one worker, at its measured rates")
    if queries.failed:
        reasons = format_reasons(queries.reasons)
        echo(f"failed     {queries.failed} rows ({reasons}), the first: {queries.first_message}")
