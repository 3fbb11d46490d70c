"""The main job on the bundled catalogue: import, index, re-rank, evaluate."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from nightshift.demo.catalogue import is_current, write_catalogue
from nightshift.demo.paths import coarse_dir, scorer_dir
from nightshift.demo.render import TRAINED
from nightshift.models.checkpoints.describe import describe_embedder, describe_scorer
from nightshift.producers.catalog_import import import_catalog
from nightshift.producers.plan_index import plan_index
from nightshift.producers.plan_rerank import plan_rerank
from nightshift.producers.query_import import import_queries
from nightshift.results.calibration import calibration, threshold
from nightshift.results.evaluate import RunEvaluation, evaluate
from nightshift.schema.params import MethodName, RerankParams, ScorerParams
from nightshift.scoring.methods.registry import METHODS
from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.postgres.database import Database

__all__ = ["Direction", "Enhanced", "Night", "Ranked", "run_night"]

#: Deep enough that what the coarse search has in its first twenty can be brought to the top.
TOP_K = 20
#: Share of the pairs on which the enhancement is made to fire once: at its published gamma it fires
#: on none of them.
FIRING_SHARE = 0.2
#: Share of the queries scored without the enhancement too.
COMPARE = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """Which queries look for what, and in which catalogue."""

    catalog: str
    queries: str
    items: str
    #: The stem of the files of queries and judgements, if it is another than `queries`.
    file: str = ""
    #: Items that each query looks for.
    relevant: int = 1

    @property
    def name(self) -> str:
        """As it is told: `text-to-image`."""
        return f"{self.queries}-to-{self.items}"


TEXT_TO_IMAGE = Direction(catalog="demo-pictures", queries="text", items="image")
IMAGE_TO_TEXT = Direction(catalog="demo-captions", queries="image", items="text")
#: Other images of the scene that an image shows badly, among images of scenes one edit away.
IMAGE_TO_IMAGE = Direction(
    catalog="demo-renderings",
    queries="image",
    items="image",
    file="instance",
    relevant=len(TRAINED),
)

#: What each method is shown on, RetLLM beside it; IndexMLLM asks about two images only.
_SHOWN_ON: Mapping[MethodName, tuple[Direction, ...]] = {
    "retllm": (),
    "freeret": (TEXT_TO_IMAGE, IMAGE_TO_TEXT),
    "indexmllm": (IMAGE_TO_IMAGE,),
}
#: The bundled scorer is too small to have learnt to look for a text that it read before.
_FRAMINGS = {(TEXT_TO_IMAGE, "freeret"): "freeret_candidate_first"}
_FILES = {
    TEXT_TO_IMAGE.catalog: "items.jsonl",
    IMAGE_TO_TEXT.catalog: "captions.jsonl",
    IMAGE_TO_IMAGE.catalog: "renderings.jsonl",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """What one re-ranking run came to."""

    direction: Direction
    method: MethodName
    run_id: int
    queries: int
    pairs: int
    evaluation: RunEvaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class Enhanced:
    """The text queries once more, with an enhancement that fires."""

    ranked: Ranked
    gamma: float
    #: Of the pairs, those on which it fired: at its published gamma, and at this one.
    share_before: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """What the demo did; times in seconds."""

    items: int
    failed: int
    text_to_image: Ranked
    image_to_text: Ranked
    enhanced: Enhanced
    #: Runs of another method, and of RetLLM in a direction of that method's alone.
    others: tuple[Ranked, ...]
    import_s: float
    index_s: float
    rerank_s: float


def run_night(
    database: Database,
    vectors: VectorStore,
    folder: Path,
    *,
    method: MethodName,
    wait: Callable[[Database, int], None],
    say: Callable[[str], None],
) -> Night:
    """Do the main job, text→image and image→text; a second call reuses what is there.

    Args:
        database: Postgres.
        vectors: Milvus.
        folder: Where the drawn catalogue lies, or is to be written.
        method: Run beside RetLLM, if it is another.
        wait: Blocks until a run has ended; raises if it failed.
        say: Tells a person what is going on.
    """
    began = monotonic()
    if not is_current(folder):
        say("drawing 2,048 scenes of shapes")
        write_catalogue(folder)
    directions = dict.fromkeys((TEXT_TO_IMAGE, IMAGE_TO_TEXT, *_SHOWN_ON[method]))
    imports = {
        entry.catalog: import_catalog(database, entry.catalog, str(folder / _FILES[entry.catalog]))
        for entry in directions
    }
    imported = monotonic()
    for catalog, counts in imports.items():
        say(f"imported {counts.read} items into {catalog}")
    embedder = describe_embedder(f"open_clip:{coarse_dir()}")
    for entry in directions:
        planned = plan_index(database, vectors, entry.catalog, embedder=embedder, parts=entry.items)
        say(f"run {planned.run_id}: embedding {planned.n_units} items of {entry.catalog}")
        wait(database, planned.run_id)
    indexed = monotonic()

    def rerank(direction: Direction, by: MethodName) -> Ranked:
        return _rerank(database, folder, direction, by, wait=wait, say=say)

    by_retllm = {entry: rerank(entry, "retllm") for entry in directions}
    enhanced = _enhanced(database, folder, by_retllm[TEXT_TO_IMAGE], wait=wait, say=say)
    return Night(
        items=imports[TEXT_TO_IMAGE.catalog].read,
        failed=sum(counts.failed for counts in imports.values()),
        text_to_image=by_retllm.pop(TEXT_TO_IMAGE),
        image_to_text=by_retllm.pop(IMAGE_TO_TEXT),
        enhanced=enhanced,
        others=(*by_retllm.values(), *(rerank(entry, method) for entry in _SHOWN_ON[method])),
        import_s=imported - began,
        index_s=indexed - imported,
        rerank_s=monotonic() - indexed,
    )


def _enhanced(
    database: Database,
    folder: Path,
    before: Ranked,
    *,
    wait: Callable[[Database, int], None],
    say: Callable[[str], None],
) -> Enhanced:
    """Re-rank with a gamma at which the enhancement fires on a share of the pairs."""
    chosen = threshold(database, before.run_id, FIRING_SHARE)
    ranked = _rerank(
        database, folder, before.direction, "retllm", gamma=chosen.gamma, wait=wait, say=say
    )
    at_first, then = (calibration(database, run.run_id) for run in (before, ranked))
    return Enhanced(
        ranked=ranked,
        gamma=chosen.gamma,
        share_before=at_first.n_fired / at_first.n_scored,
        share=then.n_fired / then.n_scored,
    )


def _rerank(
    database: Database,
    folder: Path,
    direction: Direction,
    method: MethodName,
    *,
    gamma: float | None = None,
    wait: Callable[[Database, int], None],
    say: Callable[[str], None],
) -> Ranked:
    queries = import_queries(
        database,
        str(folder / f"queries-{direction.file or direction.queries}.jsonl"),
        name=f"demo-{direction.name}",
        qrels=str(folder / f"qrels-{direction.file or direction.queries}-{direction.items}.txt"),
    )
    params = _params(direction, method, gamma)
    scorer = describe_scorer(f"hf:{scorer_dir()}", params.scorer)
    planned = plan_rerank(
        database,
        direction.catalog,
        index_name=None,
        query_set_id=queries.query_set_id,
        scorer=scorer,
        params=params,
    )
    say(
        f"run {planned.run_id}: {method}{', enhanced,' if gamma else ''} re-ranks "
        f"{queries.n_queries} {direction.queries} queries over {direction.catalog}, "
        f"{planned.n_units} pairs"
    )
    wait(database, planned.run_id)
    return Ranked(
        direction=direction,
        method=method,
        run_id=planned.run_id,
        queries=queries.n_queries,
        pairs=planned.n_units,
        evaluation=evaluate(database, planned.run_id),
    )


def _params(direction: Direction, method: MethodName, gamma: float | None) -> RerankParams:
    chosen = METHODS[method].preset(None)
    enhancement = chosen.enhancement
    if gamma is not None:
        enhancement = enhancement.model_copy(update={"gamma": gamma})
    return RerankParams(
        top_k=TOP_K,
        query_parts=direction.queries,
        item_parts=direction.items,
        quantum=chosen.quantum,
        fusion=chosen.fusion,
        # What it changed shows beside the run before.
        compare=0.0 if gamma else COMPARE,
        scorer=ScorerParams(
            method=method,
            preset="default" if "default" in chosen.presets else None,
            score=chosen.score,
            framing=_FRAMINGS.get((direction, method), chosen.framing_for(chosen.score).name),
            enhancement=enhancement,
        ),
    )
