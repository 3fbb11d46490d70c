"""For `benchmarks.scoring`: the three ways to score the same pairs with the same model."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.modeling_outputs import BaseModelOutputWithPooling, CausalLMOutputWithPast

from benchmarks.scoring_pairs import Case, PairSource, Read, singles
from benchmarks.scoring_setup import Model
from nightshift.models.engine.enhancement import enhanced
from nightshift.models.engine.packed.engine import PackedEngine
from nightshift.models.engine.prompts import PreparedPrompts, Prompt
from nightshift.models.engine.visual import encode_images, prepare_image, to_stored
from nightshift.models.inputs.codecs.codec import Codec
from nightshift.models.inputs.codecs.records import decode_record, encode_record
from nightshift.models.inputs.content import ItemContent
from nightshift.models.scorers.pairs import PairScorer
from nightshift.models.scorers.protocol import PairGroup
from nightshift.schema.params import EnhancementParams
from nightshift.scoring.codecs import parse_codec
from nightshift.scoring.methods.retllm import ENHANCEMENTS
from nightshift.workers.contents import chunks
from nightshift.workers.groups import micro_batches

__all__ = ["BATCH", "Column", "Columns", "stored"]

#: Pairs of a forward of the careful user's.
BATCH = 16

#: Does all the work of one column: logits of both labels, (n, 2), in the order of its pairs.
Column = Callable[[], NDArray[np.float32]]
_Work = Callable[[], PreparedPrompts]


class Columns:
    """One case, ready to be scored in each way.

    Args:
        model: The same weights for all.
        case: What to score.
        enhancement: When and how the image is looked at again.
    """

    def __init__(self, model: Model, case: Case, enhancement: EnhancementParams) -> None:
        assert model.ours.layer_ops is not None
        self._model = model
        self._device = model.library.device
        self._enhancement = enhancement
        self._labels = case.rule.labels
        self._engine = PackedEngine(model.ours, model.ours.layer_ops, model.limits)
        self._method = PairScorer(self._engine, (case.rule,), ENHANCEMENTS["off"], "benchmark")
        words = (case.rule.labels.positive, case.rule.labels.negative)
        self._label_ids = [model.stock.text.label(word) for word in words]
        pairs = list(singles(case.sources))
        self.n_pairs = len(pairs)
        #: Numbers of the pairs that the loop walks through, evenly spread over the groups.
        self.few = list(range(0, len(pairs), max(1, len(pairs) // case.n_loop)))

        def work(sources: Sequence[PairSource]) -> _Work:
            if case.end_to_end:
                return lambda: self._prepare([entry.group() for entry in sources])
            results = self._prepare([entry.group() for entry in sources])
            return lambda: results

        self.all_pairs = work(case.sources)
        self._few = [work([pairs[i]]) for i in self.few]
        #: As a worker takes them where reading counts; else in one go, as the batched column.
        parts = list(_as_a_worker(case.sources)) if case.end_to_end else [case.sources]
        self._parts = [work(part) for part in parts]

    def loop(self) -> NDArray[np.float32]:
        """One forward a pair: full-vocabulary logits everywhere, the vision tower each time."""
        results = []
        for work in self._few:
            prepared = work()
            (prompt,) = prepared.prompts
            shown = [prepared.images[i] for i in prompt.images]
            from_pixels = all(image_file.stored is None for image_file in shown)
            if from_pixels and self._enhancement.trigger == "never":
                pixels = torch.cat([image_file.pixels for image_file in shown]).to(self._device)
                logits = self._model.library(
                    **self._inputs(prepared, [prompt]), pixel_values=pixels
                )
            else:
                # The enhancement needs the visual tokens: the same call as the model's own.
                self._model.stock.vision_cache.clear()
                tokens = [[image.tokens for image in encode_images(self._model.stock, shown)]]
                logits = self._forward(prepared, [prompt], tokens, keep=0)
            results.append(self._read(logits))
        return np.concatenate(results)

    def batched(self) -> NDArray[np.float32]:
        """Batches of 16, logits at the end only, the vision tower once a distinct image."""
        self._model.stock.vision_cache.clear()
        prepared = self.all_pairs()
        visual_tokens = encode_images(self._model.stock, prepared.images)
        prompts = prepared.prompts
        results = np.empty((len(prompts), 2), np.float32)

        def length(i: int) -> int:
            return len(prompts[i].ids)

        # Prompts as long as each other: no batch pads.
        for _, alike in groupby(sorted(range(len(prompts)), key=length), key=length):
            for places in chunks(list(alike), BATCH):
                some = [prompts[i] for i in places]
                tokens = [[visual_tokens[i].tokens for i in prompt.images] for prompt in some]
                results[list(places)] = self._read(self._forward(prepared, some, tokens, keep=1))
        return results

    def ours(self) -> NDArray[np.float32]:
        """The engine that the main job runs."""
        # What an earlier round saw would spare this one the vision tower.
        self._model.ours.vision_cache.clear()
        results = [
            reading.label_logits
            for work in self._parts
            for group in self._engine.score(
                work(), labels=self._labels, enhancement=self._enhancement
            )
            for reading in group
        ]
        return np.stack(results)

    def _prepare(self, groups: list[PairGroup]) -> PreparedPrompts:
        prepared: PreparedPrompts = self._method.prepare(groups).groups  # type: ignore[attr-defined]
        return prepared

    def _forward(
        self,
        prepared: PreparedPrompts,
        batch: list[Prompt],
        tokens: list[list[torch.Tensor]],
        *,
        keep: int,
    ) -> CausalLMOutputWithPast:
        features = tuple(entry for of_prompt in tokens for entry in of_prompt)
        memories = [torch.cat(of_prompt) for of_prompt in tokens]
        lengths = [len(prompt.ids) for prompt in batch]
        with enhanced(self._model.stock.decoder, self._enhancement, memories, lengths):
            return self._model.library(
                **self._inputs(prepared, batch),
                mm_encoder_outputs={"image": BaseModelOutputWithPooling(pooler_output=features)},
                logits_to_keep=keep,
            )

    def _inputs(self, prepared: PreparedPrompts, batch: list[Prompt]) -> dict[str, torch.Tensor]:
        ids = torch.stack([prompt.ids for prompt in batch])
        inputs = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "mm_token_type_ids": self._model.stock.is_visual(ids).int(),
            "image_grid_thw": torch.tensor(
                [prepared.images[i].grid for prompt in batch for i in prompt.images]
            ),
        }
        return {name: tensor.to(self._device) for name, tensor in inputs.items()}

    def _read(self, output: CausalLMOutputWithPast) -> NDArray[np.float32]:
        assert output.logits is not None
        results: NDArray[np.float32] = output.logits[:, -1, self._label_ids].float().cpu().numpy()
        return results


@torch.inference_mode()
def stored(model: Model, sources: Sequence[PairSource]) -> tuple[PairSource, ...]:
    """The same pairs, their images as records that an earlier night kept, under codec `none`."""
    family = model.ours
    weight = family.decoder.head_weight
    precision = str(weight.dtype).removeprefix("torch.")
    codec = Codec(parse_codec("none"), width=weight.shape[1], precision=precision, codebook=None)
    kept: dict[Read, Read] = {}

    def of(read: Read) -> Read:
        if read not in kept:
            kept[read] = _recorded(read(), read)
        return kept[read]

    def _recorded(content: ItemContent, read: Read) -> Read:
        if not content.images:
            return read
        images = [prepare_image(family, image, model.limits) for image in content.images]
        recorded = [
            to_stored(*entry) for entry in zip(images, encode_images(family, images), strict=True)
        ]
        record = encode_record(recorded, codec)
        return lambda: ItemContent(texts=content.texts, stored=decode_record(record, codec))

    return tuple(
        PairSource(
            shared_side=entry.shared_side,
            shared=of(entry.shared),
            others=tuple(of(other) for other in entry.others),
        )
        for entry in sources
    )


def _as_a_worker(sources: Sequence[PairSource]) -> Iterator[list[PairSource]]:
    """As many pairs at a time as a worker reads and scores."""
    groups = [(i, tuple(range(len(entry.others)))) for i, entry in enumerate(sources)]
    for batch in micro_batches(groups):
        yield [
            replace(sources[i], others=tuple(sources[i].others[j] for j in places))
            for i, places in batch
        ]
