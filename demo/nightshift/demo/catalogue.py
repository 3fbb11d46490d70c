"""The held-out evaluation: images, captions, queries and relevance judgements, from a seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

from PIL import Image

from nightshift.demo import render as rendering_code
from nightshift.demo import scenes as scenes_code
from nightshift.demo.render import TRAINED, Rendering, render
from nightshift.demo.scenes import Scene, Split, describe, neighbours, random_scene

SEED = 2026
"""The seed of the evaluation that the model cards report."""

_FAMILY = 16
_QUERIES = 200
#: Of each queried scene: as many as there are images of it.
_STRANGERS = len(TRAINED)
_MARK = "drawn.sha256"


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneItem:
    """One image of the catalogue and its caption."""

    id: str
    scene: Scene
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """The evaluation in memory.

    Attributes:
        items: no two show the same scene or bear the same caption.
        queried: the items that the queries look for, one by one.
        questions: the text queries, worded again, in the order of `queried`.
    """

    items: tuple[SceneItem, ...]
    queried: tuple[SceneItem, ...]
    questions: tuple[str, ...]


def build_catalogue(
    seed: int = SEED, *, items: int = 2048, queries: int = _QUERIES, split: Split = Split.TEST
) -> Catalogue:
    """Draw families of near neighbours until there are enough items.

    A family is a scene and scenes one or two permuting edits away from it, each in a row and in
    a column, so that every item has hard negatives beside it: swapped colours, shapes, sizes and
    places, and the other relation. All scenes belong to `split`.
    """
    rng = Random(f"{seed}:catalogue:{split}")
    scenes: dict[Scene, None] = {}
    while len(scenes) < items:
        for scene in _family(random_scene(rng, split), rng):
            scenes.setdefault(scene)
    order = list(scenes)[:items]
    rng.shuffle(order)
    made = tuple(
        SceneItem(id=f"scene-{index:05d}", scene=scene, caption=describe(scene, rng))
        for index, scene in enumerate(order)
    )
    queried = tuple(rng.sample(made, queries))
    questions = tuple(describe(item.scene, rng) for item in queried)
    return Catalogue(items=made, queried=queried, questions=questions)


def write_catalogue(
    directory: Path, seed: int = SEED, *, items: int = 2048, queries: int = _QUERIES
) -> Catalogue:
    """Write the evaluation as files; the same arguments write the same bytes.

    - `items.jsonl` (`id`, `image`, `text`): the catalogue, its captions beside the images;
    - `captions.jsonl` (`id`, `text`): the captions as a catalogue of their own;
    - `renderings.jsonl` (`id`, `image`): the queried scenes drawn again, once in each manner, and
      scenes one edit away from them that nobody looks for;
    - `queries-text.jsonl` (`id`, `text`), `queries-image.jsonl` (`id`, `image`);
    - `queries-instance.jsonl` (`id`, `image`): the queried scenes once more, smaller, more
      crowded, half hidden and in a stronger light;
    - `qrels-text-image.txt`, `qrels-image-text.txt`, `qrels-instance-image.txt`: TREC judgements.

    Images are PNG files under `images/`, named relative to `directory`. `drawn.sha256` is written
    last, for `is_current`.
    """
    mark = directory / _MARK
    mark.unlink(missing_ok=True)
    catalogue = build_catalogue(seed, items=items, queries=queries)
    (directory / "images").mkdir(parents=True, exist_ok=True)
    for item in catalogue.items:
        draw_item(item, seed).save(directory / _image_path(item.id))
    _write_lines(
        directory / "items.jsonl",
        ({"id": i.id, "image": _image_path(i.id), "text": i.caption} for i in catalogue.items),
    )
    _write_lines(
        directory / "captions.jsonl", ({"id": i.id, "text": i.caption} for i in catalogue.items)
    )
    _write_queries(directory, catalogue)
    _write_renderings(directory, catalogue, seed)
    mark.write_text(_digest(seed, items, queries))
    return catalogue


def is_current(
    directory: Path, seed: int = SEED, *, items: int = 2048, queries: int = _QUERIES
) -> bool:
    """Tells whether `write_catalogue` with these arguments finished there, by the present code."""
    mark = directory / _MARK
    return mark.exists() and mark.read_text() == _digest(seed, items, queries)


def draw_item(item: SceneItem, seed: int = SEED, rendering: Rendering | None = None) -> Image.Image:
    """Draw the image of an item, a candid one, or one of its other renderings."""
    manner = rendering or Rendering.CANDID
    return render(item.scene, Random(f"{seed}:{item.id}:{rendering}"), manner)


def _digest(seed: int, items: int, queries: int) -> str:
    """Digest of what the files depend on: arguments, and source code that draws and words."""
    digest = hashlib.sha256(f"{seed} {items} {queries}\n".encode())
    for file in (__file__, rendering_code.__file__, scenes_code.__file__):
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()


def _family(scene: Scene, rng: Random) -> list[Scene]:
    near = neighbours(scene)
    further = sorted({far for entry in near for far in neighbours(entry)} - {scene, *near})
    rng.shuffle(near)
    rng.shuffle(further)
    both = [both for entry in (scene, *near, *further) for both in (entry, entry.turned)]
    return list(dict.fromkeys(both))[:_FAMILY]


def _write_queries(directory: Path, catalogue: Catalogue) -> None:
    texts, images, text_qrels, image_qrels = [], [], [], []
    pairs = zip(catalogue.queried, catalogue.questions, strict=True)
    for number, (item, question) in enumerate(pairs):
        text_id, image_id = f"text-{number:03d}", f"image-{number:03d}"
        texts.append({"id": text_id, "text": question})
        images.append({"id": image_id, "image": _image_path(item.id)})
        text_qrels.append(f"{text_id} 0 {item.id} 1")
        image_qrels.append(f"{image_id} 0 {item.id} 1")
    _write_lines(directory / "queries-text.jsonl", texts)
    _write_lines(directory / "queries-image.jsonl", images)
    _write_qrels(directory / "qrels-text-image.txt", text_qrels)
    _write_qrels(directory / "qrels-image-text.txt", image_qrels)


def _write_renderings(directory: Path, catalogue: Catalogue, seed: int) -> None:
    lines, qrels, queries = [], [], []
    taken = {item.scene for item in catalogue.queried}
    for number, item in enumerate(catalogue.queried):
        query = {"id": f"instance-{number:03d}", "image": _image_path(f"{item.id}-harsh")}
        draw_item(item, seed, Rendering.HARSH).save(directory / query["image"])
        queries.append(query)
        for near in _strangers(item, taken, seed):
            manner = TRAINED[len(taken) % len(TRAINED)]
            draw_item(near, seed, manner).save(directory / _image_path(near.id))
            lines.append({"id": near.id, "image": _image_path(near.id)})
        for rendering in TRAINED:
            name = f"{item.id}-{rendering}"
            draw_item(item, seed, rendering).save(directory / _image_path(name))
            lines.append({"id": name, "image": _image_path(name)})
            qrels.append(f"{query['id']} 0 {name} 1")
    _write_lines(directory / "renderings.jsonl", lines)
    _write_lines(directory / "queries-instance.jsonl", queries)
    _write_qrels(directory / "qrels-instance-image.txt", qrels)


def _strangers(item: SceneItem, taken: set[Scene], seed: int) -> Iterator[SceneItem]:
    """Scenes one edit away from an item's, none of them drawn before; they are taken then."""
    near = [scene for scene in neighbours(item.scene) if scene not in taken]
    Random(f"{seed}:{item.id}:strangers").shuffle(near)
    for number, scene in enumerate(near[:_STRANGERS]):
        taken.add(scene)
        yield SceneItem(id=f"{item.id}-near-{number}", scene=scene, caption="")


def _image_path(name: str) -> str:
    return f"images/{name}.png"


def _write_lines(path: Path, records: Iterable[Mapping[str, str]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def _write_qrels(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
