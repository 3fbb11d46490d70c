"""`nightshift rerank --dry-run`: read the queries, judge the work, keep nothing."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from nightshift.cli.echo import echo, echo_json
from nightshift.cli.formats import format_reasons
from nightshift.cli.planning import query_set_parts
from nightshift.producers.plan_rerank import RerankEstimate, estimate_rerank
from nightshift.producers.query_import import QuerySetSummary, read_queries
from nightshift.schema.errors import InputError
from nightshift.schema.models import ModelFacts
from nightshift.schema.params import RerankParams, kinds_from_text
from nightshift.scoring.methods.registry import framings_of
from nightshift.stores.files.blobs import BlobStore
from nightshift.stores.postgres.database import Database

__all__ = ["show_estimate"]


def show_estimate(
    database: Database,
    catalog: str,
    queries: str,
    *,
    qrels: str | None,
    image_roots: Sequence[str],
    index_name: str | None,
    scorer: ModelFacts,
    params: RerankParams,
    query_parts: str | None,
    as_json: bool,
) -> None:
    """Print what a run would cost; exit with 7 where rows of the file of queries failed.

    The queries are imported as for the run, in a transaction that is rolled back, and pictures that
    came inside the file go to a folder that is deleted.

    Args:
        database: Postgres.
        catalog: Its name.
        queries: File of queries.
        qrels: File of judgements.
        image_roots: Where images may lie, beside that of the file.
        index_name: The newest ready one if None.
        scorer: The scorer.
        params: Of the run.
        query_parts: What models see of a query; all that the queries have if None.
        as_json: Print one JSON object.

    Raises:
        InputError: Where not one query could be taken.
    """
    with TemporaryDirectory() as folder, database.sketch() as connection:
        read = read_queries(
            connection,
            queries,
            qrels=qrels,
            blobs=BlobStore(Path(folder)),
            image_roots=image_roots,
        )
        if not read.n_queries:
            why = read.first_message or "it is empty"
            raise InputError(f"{queries} holds no query that can be used ({why})", "no_queries")
        query_parts = query_parts or query_set_parts(connection, read.query_set_id)
        params = params.model_copy(update={"query_parts": query_parts})
        estimate = estimate_rerank(
            connection,
            catalog,
            index_name=index_name,
            query_set_id=read.query_set_id,
            scorer=scorer,
            params=params,
            shared_side=_shared_side(params),
        )
    if as_json:
        failed = {"failed": read.failed, "reasons": dict(read.reasons)}
        echo_json({**asdict(estimate), **failed}, indent=None)
    else:
        _print(estimate, params, read)
    if read.failed:
        raise SystemExit(InputError.exit_code)


def _shared_side(params: RerankParams) -> str:
    rule, *_ = framings_of(params.scorer)
    shown = kinds_from_text(params.query_parts), kinds_from_text(params.item_parts)
    return rule.shared_side(*shown)


def _print(estimate: RerankEstimate, params: RerankParams, read: QuerySetSummary) -> None:
    share = estimate.reused / estimate.pairs if estimate.pairs else 0.0
    echo(f"items      {estimate.items}")
    echo(f"queries    {estimate.queries}, {params.query_parts} shown")
    echo(f"pairs      {estimate.pairs} at depth {params.top_k}, {params.item_parts} shown")
    echo(f"groups     {estimate.groups} at most, sharing one side of their prompt")
    about = "" if estimate.reused_exactly else "about "
    echo(f"reused     {about}{estimate.reused} pairs ({share:.0%}) scored on earlier nights")
    if not estimate.reused_exactly:
        echo("           the index was not searched for all of them, or has changed since")
    if estimate.seconds is None:
        echo("time       unknown until these models have run here once")
    else:
        echo(f"time       {estimate.seconds:.0f} s of one worker, at its measured rates")
    if read.failed:
        reasons = format_reasons(read.reasons)
        echo(f"failed     {read.failed} rows ({reasons}), the first: {read.first_message}")
