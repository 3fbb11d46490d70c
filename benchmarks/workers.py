"""Three workers on the same cores against one: the score stage of the demo's text queries."""

import json
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

import click
from sqlalchemy import text

from nightshift import api
from nightshift.cli.embedded_stack import open_stack
from nightshift.demo import coarse_dir, scorer_dir, write_catalogue
from nightshift.stack import Stack
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
    write_catalogue(folder / "demo")
    seconds: dict[int, list[float]] = {1: [], 3: []}
    with api.connect(folder) as ns:
        ns.import_catalog("scenes", str(folder / "demo" / "items.jsonl"))
        embedder = f"open_clip:{coarse_dir()}"
        index = api.IndexRequest(catalog="scenes", embedder=embedder, parts="image")
        ns.wait(ns.build_index(index)).require_done()
        for repeat in range(2 * repeats):
            n_workers = (1, 3)[repeat % 2]
            stack.down()
            stack.up(n_workers)
            _wait_for_workers(ns.database, n_workers)
            seconds[n_workers].append(_rerank(ns, folder, repeat))
    entry, three = median(seconds[1]), median(seconds[3])
    return {"one_worker_s": entry, "three_workers_s": three, "ratio": entry / three}


def _rerank(ns: api.Nightshift, folder: Path, repeat: int) -> float:
    request = api.RerankRequest(
        catalog="scenes",
        queries=str(folder / "demo" / "queries-text.jsonl"),
        scorer=f"hf:{scorer_dir()}",
        top_k=20,
        query_parts="text",
        item_parts="image",
    )
    with ns.database.begin() as connection:  # or later rounds would reuse the scores of the first
        connection.execute(text("DELETE FROM score"))
    planned = ns.rerank(request)
    start = perf_counter()  # without reading queries and describing models
    state = ns.wait(planned).state
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
