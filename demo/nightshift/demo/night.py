"""The main job on the bundled catalogue: import, index, re-rank both ways, evaluate, draw."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from nightshift.demo.catalogue import write_catalogue
from nightshift.demo.paths import coarse_dir, scorer_dir
from nightshift.models.describe import describe_embedder, describe_scorer
from nightshift.producers.catalog_import import import_catalog
from nightshift.producers.plan_index import plan_index
from nightshift.producers.plan_rerank import plan_rerank
from nightshift.producers.query_import import import_queries
from nightshift.query.evaluate import Evaluation, evaluate
from nightshift.schema.runs import RunParams
from nightshift.stores.database import Database
from nightshift.stores.milvus import VectorStore

__all__ = ["Direction", "Night", "run_night"]

#: Deep enough that what the coarse search has in its first twenty can be brought to the top.
TOP_K = 20
#: Share of the queries scored without the enhancement too.
COMPARE = 0.25

_PICTURES = "demo-pictures"
_CAPTIONS = "demo-captions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """What one re-ranking run came to."""

    run_id: int
    queries: int
    pairs: int
    evaluation: Evaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """What the demo did; times in seconds."""

    items: int
    failed: int
    text_to_image: Direction
    image_to_text: Direction
    import_s: float
    index_s: float
    rerank_s: float


def run_night(
    database: Database,
    vectors: VectorStore,
    folder: Path,
    *,
    wait: Callable[[Database, int], None],
    say: Callable[[str], None],
) -> Night:
    """Do the main job twice, text→image and image→text; a second call reuses what is there.

    Args:
        database: Postgres.
        vectors: Milvus.
        folder: Where the drawn catalogue lies, or is to be written.
        wait: Blocks until a run has ended; raises if it failed.
        say: Tells a person what is going on.
    """
    began = monotonic()
    if not (folder / "qrels-image-image.txt").exists():
        say("drawing 2,048 scenes of shapes")
        write_catalogue(folder)
    pictures = import_catalog(database, _PICTURES, str(folder / "items.jsonl"))
    captions = import_catalog(database, _CAPTIONS, str(folder / "captions.jsonl"))
    imported = monotonic()
    say(f"imported {pictures.read} pictures and {captions.read} captions")
    embedder = describe_embedder(f"open_clip:{coarse_dir()}")
    for catalog, parts in ((_PICTURES, "image"), (_CAPTIONS, "text")):
        planned = plan_index(database, vectors, catalog, embedder=embedder, parts=parts)
        say(f"run {planned.run_id}: embedding {planned.n_units} items of {catalog}")
        wait(database, planned.run_id)
    indexed = monotonic()
    text_to_image = _rerank(database, folder, _PICTURES, "text", "image", wait=wait, say=say)
    image_to_text = _rerank(database, folder, _CAPTIONS, "image", "text", wait=wait, say=say)
    return Night(
        items=pictures.read,
        failed=pictures.failed + captions.failed,
        text_to_image=text_to_image,
        image_to_text=image_to_text,
        import_s=imported - began,
        index_s=indexed - imported,
        rerank_s=monotonic() - indexed,
    )


def _rerank(
    database: Database,
    folder: Path,
    catalog: str,
    query_kind: str,
    item_kind: str,
    *,
    wait: Callable[[Database, int], None],
    say: Callable[[str], None],
) -> Direction:
    queries = import_queries(
        database,
        str(folder / f"queries-{query_kind}.jsonl"),
        name=f"demo-{query_kind}",
        qrels=str(folder / f"qrels-{query_kind}-{item_kind}.txt"),
    )
    params = RunParams(top_k=TOP_K, query_parts=query_kind, item_parts=item_kind, compare=COMPARE)
    scorer = describe_scorer(f"hf:{scorer_dir()}", params.scorer)
    planned = plan_rerank(
        database,
        catalog,
        index_name=None,
        query_set_id=queries.query_set_id,
        scorer=scorer,
        params=params,
    )
    say(
        f"run {planned.run_id}: re-ranking {queries.n_queries} {query_kind} queries over "
        f"{catalog}, {planned.n_units} pairs"
    )
    wait(database, planned.run_id)
    return Direction(
        run_id=planned.run_id,
        queries=queries.n_queries,
        pairs=planned.n_units,
        evaluation=evaluate(database, planned.run_id),
    )
