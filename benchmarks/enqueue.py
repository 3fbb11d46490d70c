"""Cost of planning and enqueueing an item, against one Celery message an item."""

import json
import tempfile
from pathlib import Path
from time import perf_counter

import click

from nightshift.producers.catalog_import import import_catalog
from nightshift.producers.plan_index import plan_index
from nightshift.producers.requests import IndexRequest
from nightshift.producers.resolve import resolve_index
from nightshift.schema.models import ModelFacts
from nightshift.stack import Stack
from nightshift.stores.broker.broker import Broker
from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.postgres.database import Database

_EMBEDDER = ModelFacts(
    kind="embedder", spec="open_clip:benchmark", fingerprint="0" * 16, card={}, dim=64
)


@click.command()
@click.option("--items", default=100_000, show_default=True)
@click.option("--messages", default=3_000, show_default=True, help="Of the baseline.")
@click.option("--json", "as_json", is_flag=True)
def main(items: int, messages: int, as_json: bool) -> None:
    """Plan an index run over ITEMS texts, and send MESSAGES Celery messages."""
    with tempfile.TemporaryDirectory(prefix="ns-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        stack = Stack(Path(folder))
        try:
            stack.up(0, dispatcher=False)
            facts = _measure(stack, Path(folder), items, messages)
        finally:
            stack.down()
    if as_json:
        print(json.dumps(facts))
    else:
        for name, value in facts.items():
            print(f"{name:24} {value:.4g}")


def _measure(stack: Stack, folder: Path, items: int, messages: int) -> dict[str, float]:
    urls = stack.urls()
    source = folder / "items.jsonl"
    source.write_text("".join(f'{{"id":"i{n}","text":"item {n}"}}\n' for n in range(items)))
    with Database(urls.database_url) as database:
        vectors = VectorStore(urls.milvus_uri, urls.milvus_token)
        start = perf_counter()
        import_catalog(database, "benchmark", str(source))
        import_s = perf_counter() - start
        start = perf_counter()
        request = IndexRequest(catalog="benchmark", embedder=_EMBEDDER.spec)
        planned = plan_index(
            database,
            vectors,
            request.catalog,
            embedder=_EMBEDDER,  # has no weights, so the API could not describe it
            parts=resolve_index(request, has_images=False).parts,
        )
        plan_s = perf_counter() - start
        vectors.close()
    broker = Broker(urls.redis_url)
    start = perf_counter()
    for number in range(messages):
        broker.ring("baseline", 0, number)
    message_s = (perf_counter() - start) / messages
    broker.close()
    return {
        "items": planned.n_units,
        "jobs": planned.n_jobs,
        "import_ms_per_item": import_s / items * 1e3,
        "plan_ms_per_item": plan_s / items * 1e3,
        "message_ms_per_item": message_s * 1e3,
        "ratio": message_s / (plan_s / items),
    }


if __name__ == "__main__":
    main()
