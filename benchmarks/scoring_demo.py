"""For `benchmarks.scoring`: the pairs of the demo's coarse search, read as a worker reads them."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.scoring_pairs import Case, PairSource, Read
from nightshift.demo.catalogue import build_catalogue, draw_item
from nightshift.demo.night import TOP_K
from nightshift.demo.paths import coarse_dir
from nightshift.models.embedders.protocol import Embedder
from nightshift.models.inputs.content import ItemContent
from nightshift.models.load import load_embedder
from nightshift.scoring.prompts import Side
from nightshift.stores.files.images import read_image

__all__ = ["demo_case"]

_EMBEDDED_AT_A_TIME = 64


def demo_case(folder: Path, device: torch.device) -> Case:
    """Both directions of the demo's main job: 200 texts over images, 200 images over captions.

    Images are files, as they are on the night. What a text looks for is grouped by image, so
    groups are as uneven as the coarse search makes them; an image's captions are one group.

    Args:
        folder: Where to draw the images.
        device: Of the coarse model.
    """
    folder.mkdir(parents=True)
    catalogue = build_catalogue()
    images: dict[str, Read] = {}
    for item in catalogue.items:
        path = folder / f"{item.id}.png"
        draw_item(item).save(path)
        images[item.id] = partial(_image, str(path))
    embedder = load_embedder(f"open_clip:{coarse_dir()}", device=str(device))
    items = [images[item.id] for item in catalogue.items]
    captions = [partial(_text, item.caption) for item in catalogue.items]
    texts = [partial(_text, question) for question in catalogue.questions]
    queried = [images[item.id] for item in catalogue.queried]

    asking: dict[int, list[Read]] = {}
    best = _best(_embedded(embedder, texts, "query"), _embedded(embedder, items, "candidate"))
    for text, results in zip(texts, best, strict=True):
        for image in results:
            asking.setdefault(image, []).append(text)
    by_text = [
        PairSource(shared_side="candidate", shared=items[i], others=tuple(asking[i]))
        for i in sorted(asking)
    ]
    best = _best(_embedded(embedder, queried, "query"), _embedded(embedder, captions, "candidate"))
    by_image = [
        PairSource(shared_side="query", shared=image, others=tuple(captions[i] for i in results))
        for image, results in zip(queried, best, strict=True)
    ]
    sources = (*by_text, *by_image)
    return Case(
        name="demo",
        queries_per_image=round(sum(len(entry.others) for entry in sources) / len(sources), 1),
        sources=sources,
        end_to_end=True,
        n_loop=256,
    )


def _embedded(embedder: Embedder, reads: Sequence[Read], side: Side) -> NDArray[np.float32]:
    batches = range(0, len(reads), _EMBEDDED_AT_A_TIME)
    return np.concatenate(
        [
            embedder.embed(
                embedder.prepare([read() for read in reads[i : i + _EMBEDDED_AT_A_TIME]], side)
            ).vectors
            for i in batches
        ]
    )


def _best(queries: NDArray[np.float32], items: NDArray[np.float32]) -> list[list[int]]:
    """Places of the items nearest to each query, best first."""
    order = np.argsort(-(queries @ items.T), axis=1, kind="stable")
    results: list[list[int]] = order[:, :TOP_K].tolist()
    return results


def _image(path: str) -> ItemContent:
    return ItemContent(images=(read_image(path),))


def _text(text: str) -> ItemContent:
    return ItemContent(texts=(text,))
