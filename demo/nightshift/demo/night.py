"""The main job on the bundled catalogue: import, index, re-rank, evaluate."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from nightshift.api import IndexRequest, Nightshift, RerankRequest
from nightshift.demo.catalogue import is_current, write_catalogue
from nightshift.demo.paths import coarse_dir, scorer_dir
from nightshift.demo.render import TRAINED
from nightshift.results.evaluate import RunEvaluation
from nightshift.schema.params import MethodName

__all__ = ["Enhanced", "Night", "Ranked", "SearchDirection", "run_night"]

#: Deep enough that what the coarse search has in its first twenty can be brought to the top.
TOP_K = 20
#: Share of the pairs on which the enhancement is made to fire once: at its published gamma it fires
#: on none of them.
FIRING_SHARE = 0.2
#: Share of the queries scored without the enhancement too.
COMPARE = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchDirection:
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
        """As it is reported: `text-to-image`."""
        return f"{self.queries}-to-{self.items}"


TEXT_TO_IMAGE = SearchDirection(catalog="demo-pictures", queries="text", items="image")
IMAGE_TO_TEXT = SearchDirection(catalog="demo-captions", queries="image", items="text")
#: Other images of the scene that an image shows badly, among images of scenes one edit away.
IMAGE_TO_IMAGE = SearchDirection(
    catalog="demo-renderings",
    queries="image",
    items="image",
    file="instance",
    relevant=len(TRAINED),
)

#: What each method is shown on, RetLLM beside it; IndexMLLM asks about two images only.
_SHOWN_ON: Mapping[MethodName, tuple[SearchDirection, ...]] = {
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
    """Result of one re-ranking run."""

    direction: SearchDirection
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
    """Result of the demo; times in seconds."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _DemoRuns:
    """The connection, the folder and the two callbacks that every run of the demo needs."""

    nightshift: Nightshift
    folder: Path
    wait: Callable[[int], None]
    say: Callable[[str], None]

    def index(self, direction: SearchDirection) -> None:
        """Embed the items of a direction."""
        request = IndexRequest(
            catalog=direction.catalog,
            embedder=f"open_clip:{coarse_dir()}",
            parts=direction.items,
        )
        planned = self.nightshift.build_index(request)
        self.say(f"run {planned.run_id}: embedding {planned.n_units} items of {direction.catalog}")
        self.wait(planned.run_id)

    def rerank(
        self, direction: SearchDirection, method: MethodName, gamma: float | None = None
    ) -> Ranked:
        """Re-rank the queries of a direction, at this gamma of the enhancement if one is given."""
        planned = self.nightshift.rerank(_request(self.folder, direction, method, gamma))
        self.say(
            f"run {planned.run_id}: {method}{', enhanced,' if gamma else ''} re-ranks "
            f"{planned.n_queries} {direction.queries} queries over {direction.catalog}, "
            f"{planned.max_pairs} pairs"
        )
        self.wait(planned.run_id)
        return Ranked(
            direction=direction,
            method=method,
            run_id=planned.run_id,
            queries=planned.n_queries,
            pairs=planned.max_pairs,
            evaluation=self.nightshift.evaluate(planned.run_id),
        )

    def enhance(self, before: Ranked) -> Enhanced:
        """Re-rank with a gamma at which the enhancement fires on a share of the pairs."""
        chosen = self.nightshift.threshold(before.run_id, FIRING_SHARE)
        ranked = self.rerank(before.direction, "retllm", chosen.gamma)
        published, enhanced = map(self.nightshift.calibration, (before.run_id, ranked.run_id))
        return Enhanced(
            ranked=ranked,
            gamma=chosen.gamma,
            share_before=published.n_fired / published.n_scored,
            share=enhanced.n_fired / enhanced.n_scored,
        )


def run_night(
    nightshift: Nightshift,
    folder: Path,
    *,
    method: MethodName,
    wait: Callable[[int], None],
    say: Callable[[str], None],
) -> Night:
    """Do the main job, text→image and image→text; a second call reuses what is there.

    Args:
        nightshift: The connection.
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
        direction.catalog: nightshift.import_catalog(
            direction.catalog, str(folder / _FILES[direction.catalog])
        )
        for direction in directions
    }
    imported = monotonic()
    for catalog, counts in imports.items():
        say(f"imported {counts.read} items into {catalog}")
    runs = _DemoRuns(nightshift=nightshift, folder=folder, wait=wait, say=say)
    for direction in directions:
        runs.index(direction)
    indexed = monotonic()
    by_retllm = {direction: runs.rerank(direction, "retllm") for direction in directions}
    enhanced = runs.enhance(by_retllm[TEXT_TO_IMAGE])
    return Night(
        items=imports[TEXT_TO_IMAGE.catalog].read,
        failed=sum(counts.failed for counts in imports.values()),
        text_to_image=by_retllm.pop(TEXT_TO_IMAGE),
        image_to_text=by_retllm.pop(IMAGE_TO_TEXT),
        enhanced=enhanced,
        others=(
            *by_retllm.values(),
            *(runs.rerank(direction, method) for direction in _SHOWN_ON[method]),
        ),
        import_s=imported - began,
        index_s=indexed - imported,
        rerank_s=monotonic() - indexed,
    )


def _request(
    folder: Path, direction: SearchDirection, method: MethodName, gamma: float | None
) -> RerankRequest:
    stem = direction.file or direction.queries
    return RerankRequest(
        catalog=direction.catalog,
        queries=str(folder / f"queries-{stem}.jsonl"),
        query_set=f"demo-{direction.name}",
        qrels=str(folder / f"qrels-{stem}-{direction.items}.txt"),
        scorer=f"hf:{scorer_dir()}",
        method=method,
        top_k=TOP_K,
        query_parts=direction.queries,
        item_parts=direction.items,
        framing=_FRAMINGS.get((direction, method)),
        enhancement=None if gamma is None else f"gamma={gamma!r}",
        # The change shows beside the run before.
        compare=0.0 if gamma else COMPARE,
    )
