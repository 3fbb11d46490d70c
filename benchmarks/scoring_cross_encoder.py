"""For `benchmarks.scoring`: sentence-transformers' CrossEncoder on the same weights and prompts."""

import json
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.cross_encoder.modules import LogitScore
from torch import nn

from benchmarks.scoring_columns import BATCH, Column
from benchmarks.scoring_pairs import Case, PairSource, singles
from benchmarks.scoring_setup import Model
from nightshift.models.inputs.content import ItemContent
from nightshift.scoring.prompts import Content, Framing

__all__ = ["CrossEncoderColumn"]

_HEAD, _TAIL = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


class CrossEncoderColumn:
    """The model as sentence-transformers loads it from a folder.

    Args:
        model: Saved there, with its processor.
        folder: Made again.
    """

    def __init__(self, model: Model, folder: Path) -> None:
        self._model = model
        model.library.save_pretrained(folder)
        model.processor.save_pretrained(folder)
        self._transformer = Transformer(
            str(folder),
            transformer_task="any-to-any",
            model_kwargs={"dtype": model.library.dtype},
        )

    def of(self, case: Case) -> Column:
        """Margins of a case's pairs, (n,); texts and images in, as `predict` takes them."""
        text = self._model.stock.text
        labels = case.rule.labels
        scorer = CrossEncoder(
            modules=[
                self._transformer,
                LogitScore(text.label(labels.positive), text.label(labels.negative)),
            ],
            activation_fn=nn.Identity(),
            device=str(self._model.library.device),
        )
        pairs = list(singles(case.sources))
        # The demo asks in two directions: each has a prompt of its own.
        alike: dict[str, list[int]] = {}
        for place, sides in enumerate(map(_sides, pairs)):
            alike.setdefault(_template(case.rule, *sides), []).append(place)

        def read(places: list[int]) -> list[tuple[Image.Image | str, Image.Image | str]]:
            sides = [_sides(pairs[place]) for place in places]
            return [(_shown(query), _shown(item)) for query, item in sides]

        ready = {} if case.end_to_end else {entry: read(of) for entry, of in alike.items()}

        def column() -> NDArray[np.float32]:
            results = np.empty(len(pairs), np.float32)
            for template, places in alike.items():
                # All cases share one copy of the weights, hence one processor.
                self._transformer.processor.chat_template = template
                some = ready.get(template) or read(places)
                results[places] = scorer.predict(some, batch_size=BATCH, show_progress_bar=False)
            return results

        return column


def _sides(pair: PairSource) -> tuple[ItemContent, ItemContent]:
    group = pair.group()
    (other,) = group.others
    return (group.shared, other) if group.shared_side == "query" else (other, group.shared)


def _shown(content: ItemContent) -> Image.Image | str:
    return content.images[0] if content.images else content.texts[0]


def _template(rule: Framing, query: ItemContent, candidate: ItemContent) -> str:
    """The case's prompt as a chat template over messages of a query and a document.

    Args:
        rule: Asks about the pair.
        query: Only which kinds of parts it has matters.
        candidate: As above.
    """
    shown = {"query": query, "candidate": candidate}
    marked = [
        Content(texts=(_mark(side),) if content.texts else (), n_images=content.n_images)
        for side, content in shown.items()
    ]
    prompt = rule.render(*marked)
    segments = (*prompt.prefix, *prompt.suffix)
    body = "".join(
        segment if isinstance(segment, str) else _mark(segment.side) for segment in segments
    )
    pieces = re.split(f"({'|'.join(map(_mark, shown))})", _HEAD + body + _TAIL)
    filled = {_mark(side): _part(side) for side in shown}
    return "{{ " + " ~ ".join(filled.get(piece) or json.dumps(piece) for piece in pieces) + " }}"


def _mark(side: str) -> str:
    return f"\u2060{side}\u2060"


def _part(side: str) -> str:
    """Template of one side: its text, or a place for its image."""
    role = "document" if side == "candidate" else side
    results = f'(messages | selectattr("role", "equalto", "{role}") | first).content[0]'
    return f"({results}.text | default({json.dumps(_IMAGE)}))"
