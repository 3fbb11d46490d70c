"""Three workers on the same cores against one: the score stage of the demo's text queries."""

import json
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

import click
from sqlalchemy import text

from nightshift.api.waiting import wait_for_end
from nightshift.cli.embedded_stack import open_stack
from nightshift.demo import coarse_dir, scorer_dir, write_catalogue
from nightshift.models.checkpoints.describe import describe_embedder, describe_scorer
from nightshift.producers.catalog_import import import_catalog
from nightshift.producers.plan_index import plan_index
from nightshift.producers.plan_rerank import plan_rerank
from nightshift.producers.query_import import import_queries
from nightshift.schema.params import RerankParams
from nightshift.stack import Stack
from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.postgres.database import Database


@click.command()
@click.option("--repeats", default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(repeats: int, as_json: bool) -> None:
    """Re-rank the demo's 200 text queries with one worker and with three, alternating."""
    with tempfile.TemporaryDirectory(prefix="ns-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        stack = open_stack(Path(folder))
        try:
            facts = _measure(stack, Path(folder), repeats)
        finally:
            stack.down()
    print(json.dumps(facts) if as_json else "\n".join(f"{k:16} {v}" for k, v in facts.items()))


def _measure(stack: Stack, folder: Path, repeats: int) -> dict[str, object]:
    stack.up(1)
    urls = stack.urls()
    write_catalogue(folder / "demo")
    seconds: dict[int, list[float]] = {1: [], 3: []}
    with Database(urls.database_url) as database:
        vectors = VectorStore(urls.milvus_uri, urls.milvus_token)
        import_catalog(database, "scenes", str(folder / "demo" / "items.jsonl"))
        embedder = describe_embedder(f"open_clip:{coarse_dir()}")
        planned = plan_index(database, vectors, "scenes", embedder=embedder, parts="image")
        wait_for_end(database, planned.run_id)
        vectors.close()
        for repeat in range(2 * repeats):
            n_workers = (1, 3)[repeat % 2]
            stack.down()
            stack.up(n_workers)
            _wait_for_workers(database, n_workers)
            seconds[n_workers].append(_rerank(database, folder, repeat))
    entry, three = median(seconds[1]), median(seconds[3])
    return {"one_worker_s": entry, "three_workers_s": three, "ratio": entry / three}


def _rerank(database: Database, folder: Path, repeat: int) -> float:
    queries = import_queries(database, str(folder / "demo" / "queries-text.jsonl"))
    params = RerankParams(top_k=20, query_parts="text", item_parts="image")
    facts = describe_scorer(f"hf:{scorer_dir()}", params.scorer)
    with database.begin() as connection:  # or later rounds would reuse the scores of the first
        connection.execute(text("DELETE FROM pair_score"))
    start = perf_counter()
    planned = plan_rerank(
        database,
        "scenes",
        index_name=None,
        query_set_id=queries.query_set_id,
        scorer=facts,
        params=params,
    )
    state = wait_for_end(database, planned.run_id).state
    assert state == "done", f"round {repeat} ended {state}"
    return perf_counter() - start


def _wait_for_workers(database: Database, n_workers: int) -> None:
    while True:
        with database.begin() as connection:
            alive = connection.execute(
                text(
                    "SELECT count(*) FROM worker WHERE stopped_at IS NULL "
                    "AND seen_at > clock_timestamp() - interval '5 s'"
                )
            ).scalar_one()
        if alive == n_workers:
            return
        sleep(0.2)


if __name__ == "__main__":
    main()
