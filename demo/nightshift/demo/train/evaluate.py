"""Measures both models on the held-out catalogue, with plain torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from nightshift.demo import prompts
from nightshift.demo.catalogue import Catalogue, SceneItem, draw_item
from nightshift.demo.prompts import IMAGE, Prompt
from nightshift.demo.render import TRAINED, Rendering, render
from nightshift.demo.scenes import describe, neighbours
from nightshift.demo.train.coarse import embed_images, embed_texts
from nightshift.demo.train.network import collate, hidden_states, patches_of, see
from nightshift.demo.train.questions import false_caption
from nightshift.demo.train.rows import RowMaker
from nightshift.demo.train.tokenizers import token_id

_DEPTHS = (1, 5, 10, 20)
_ROWS_AT_ONCE = 128

Question = tuple[Prompt, tuple[int, ...]]
"""A prompt, and the places of its images among those seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectionQuality:
    """Recall@k of the coarse list, and of its first twenty put in the scorer's order."""

    coarse: dict[int, float]
    fine: dict[int, float]


class TrainedScorer:
    """The demo scorer on images of the demo's size: margins of a batch of prompts."""

    def __init__(self, directory: Path) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(directory)
        self._model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            directory, dtype=torch.float32
        ).eval()
        self._maker = RowMaker(self._tokenizer)

    @torch.no_grad()
    def see(self, images: NDArray[np.uint8]) -> Tensor:
        """Visual tokens `[n, 25, width]` of images `[n, 80, 80, 3]`."""
        parts = [
            see(self._model, patches_of(images[i : i + 64])) for i in range(0, len(images), 64)
        ]
        return torch.cat(parts)

    @torch.no_grad()
    def margins(
        self, questions: Sequence[Question], encoded: Tensor, labels: tuple[str, str]
    ) -> Tensor:
        """Log-odds `[prompts]` of the first label against the second.

        Args:
            questions: prompts and the places of their images in `encoded`.
            encoded: visual tokens by `see`.
            labels: of one token each.
        """
        positive, negative = (token_id(self._tokenizer, label) for label in labels)
        rows = [self._maker.row(prompt, images=at, answer=labels[0]) for prompt, at in questions]
        nothing = np.empty((0, 80, 80, 3), dtype=np.uint8)
        parts = []
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            batch = collate(rows[start : start + _ROWS_AT_ONCE], nothing, self._maker)
            states = hidden_states(self._model, batch, encoded)
            logits = self._model.lm_head(states[batch.answers >= 0])
            parts.append(logits[:, positive] - logits[:, negative])
        return torch.cat(parts)


def evaluate(
    catalogue: Catalogue, *, coarse: Path, scorer: Path, depth: int = 20
) -> dict[str, DirectionQuality]:
    """Recall of both stages over the whole catalogue; keys `text_to_image`, `image_to_text`."""
    images = draw_items(catalogue.items)
    captions = [item.caption for item in catalogue.items]
    wanted = _wanted(catalogue).tolist()
    judge = TrainedScorer(scorer)
    recorded = judge.see(images)

    def to_images(query: int, item: int) -> Question:
        return prompts.retllm(catalogue.questions[query]), (item,)

    def to_captions(query: int, item: int) -> Question:
        return prompts.retllm(captions[item]), (wanted[query],)

    directions = {}
    orders = coarse_orders(catalogue, coarse, images)
    for name, ask in (("text_to_image", to_images), ("image_to_text", to_captions)):
        order = orders[name]
        head = order[:, :depth]
        requested = [
            ask(query, item) for query in range(len(head)) for item in head[query].tolist()
        ]
        margins = judge.margins(requested, recorded, ("True", "False")).view(head.shape)
        fine = head.gather(1, margins.argsort(dim=1, descending=True, stable=True))
        directions[name] = DirectionQuality(
            coarse=recalls(order, catalogue), fine=recalls(fine, catalogue)
        )
    return directions


def coarse_orders(
    catalogue: Catalogue, coarse: Path, images: NDArray[np.uint8]
) -> dict[str, Tensor]:
    """All items by falling similarity `[queries, items]`, in both directions.

    Args:
        catalogue: the evaluation.
        coarse: directory of the open_clip model.
        images: the items' images, by `draw_items`.
    """
    clip = open_clip.create_model(f"local-dir:{coarse}")
    words = AutoTokenizer.from_pretrained(coarse)
    visual = embed_images(clip, images)
    captions = embed_texts(clip, words, [item.caption for item in catalogue.items])
    scores = {
        "text_to_image": embed_texts(clip, words, list(catalogue.questions)) @ visual.T,
        "image_to_text": visual[_wanted(catalogue)] @ captions.T,
    }
    return {
        name: score.argsort(dim=1, descending=True, stable=True) for name, score in scores.items()
    }


def recalls(order: Tensor, catalogue: Catalogue) -> dict[int, float]:
    """Share of queries whose item is among the first k, for k of 1, 5, 10 and 20."""
    hits = order == _wanted(catalogue)[:, None]
    return {depth: float(hits[:, :depth].any(1).float().mean()) for depth in _DEPTHS}


def accuracies(
    catalogue: Catalogue, scorer: Path, seed: int = 0, rendering: Rendering | None = None
) -> dict[str, float]:
    """Share of right answers to each method's question; half of the pairs are hard negatives.

    A negative is one permuting edit, or for captions one changed attribute, from the truth. Of
    a pair of images the second is the scene drawn again in any manner, or a near neighbour.
    The others are the catalogue's own, or drawn in the manner of `rendering`.
    """
    judge = TrainedScorer(scorer)
    rng = Random(f"{seed}:accuracies")
    items = catalogue.queried
    near = tuple(
        SceneItem(id=f"{item.id}-near", scene=rng.choice(neighbours(item.scene)), caption="")
        for item in items
    )
    shown = np.stack([np.asarray(draw_item(item, rendering=rendering)) for item in items])
    images = [shown, draw_items(items, rng), draw_items(near, rng)]
    recorded = judge.see(np.concatenate(images))
    places = range(len(items))
    true = [describe(item.scene, rng) for item in items]
    false = [false_caption(item.scene, rng) for item in items]

    def share_right(
        labels: tuple[str, str], fits: Sequence[Question], differs: Sequence[Question]
    ) -> float:
        margins = judge.margins([*fits, *differs], recorded, labels)
        return float(
            torch.cat([margins[: len(fits)] > 0, margins[len(fits) :] <= 0]).float().mean()
        )

    def about_texts(ask: Callable[[str], Prompt], *labels: str) -> float:
        fits, differs = ([(ask(texts[at]), (at,)) for at in places] for texts in (true, false))
        return share_right((labels[0], labels[1]), fits, differs)

    def about_image_pairs(prompt: Prompt, *labels: str) -> float:
        redrawn, other = len(items), 2 * len(items)
        fits = [(prompt, (at, redrawn + at)) for at in places]
        differs = [(prompt, (at, other + at)) for at in places]
        return share_right((labels[0], labels[1]), fits, differs)

    return {
        "RetLLM, text and image": about_texts(prompts.retllm, "True", "False"),
        "FreeRet, text and image": about_texts(lambda t: prompts.freeret(t, IMAGE), "A", "B"),
        "FreeRet, image and text": about_texts(lambda t: prompts.freeret(IMAGE, t), "A", "B"),
        "FreeRet, the image shown first though the text is the query": about_texts(
            lambda t: prompts.freeret_candidate_first(IMAGE, t), "A", "B"
        ),
        "IndexMLLM, two images": about_image_pairs(prompts.indexmllm(), "1", "0"),
        "FreeRet, two images": about_image_pairs(prompts.freeret(IMAGE, IMAGE), "A", "B"),
        "RetLLM, two images": about_image_pairs(prompts.retllm_pair(), "True", "False"),
    }


def draw_items(items: tuple[SceneItem, ...], rng: Random | None = None) -> NDArray[np.uint8]:
    """The items' images `[n, 80, 80, 3]`; with `rng`, drawn again in manners of its choice."""
    if rng is None:
        return np.stack([np.asarray(draw_item(item)) for item in items])
    manners = [rng.choice(TRAINED) for _ in items]
    return np.stack(
        [
            np.asarray(render(item.scene, rng, manner))
            for item, manner in zip(items, manners, strict=True)
        ]
    )


def _wanted(catalogue: Catalogue) -> Tensor:
    places = {item.id: place for place, item in enumerate(catalogue.items)}
    return torch.tensor([places[item.id] for item in catalogue.queried])
