"""Embedders of transformers: CLIP, SigLIP and whatever else has a text and an image tower."""

from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from nightshift.models.checkpoints.describe import describe_embedder
from nightshift.models.checkpoints.files import local_weights
from nightshift.models.checkpoints.load_errors import LOAD_ERRORS, not_loaded
from nightshift.models.checkpoints.spec import parse_spec
from nightshift.models.checkpoints.upstream import loaded_whole, pinned
from nightshift.models.embedders.dual_encoder import DualEncoder, TokenizedTexts
from nightshift.models.embedders.plain_text import PlainText
from nightshift.schema.errors import ModelError
from nightshift.schema.models import ModelFacts

__all__ = ["examine", "load"]

Inputs = dict[str, Tensor]


def load(spec: str, device: torch.device) -> DualEncoder[Inputs]:
    """Load an embedder; safetensors only, and no code from its repository unless it is trusted.

    Raises:
        ModelError: It cannot be loaded, or has no text and image features.
    """
    facts = describe_embedder(spec)
    where = pinned(parse_spec(spec).source)
    dtype = getattr(torch, facts.card["precision"])
    disable_progress_bar()
    # On `meta` tensors have shapes, but no numbers.
    placed = {"device_map": {"": device}} if device.type == "meta" else {}
    try:
        model = loaded_whole(AutoModel, spec, **where, dtype=dtype, **placed)
        tokenizer = AutoTokenizer.from_pretrained(**where)
        image_processor = AutoImageProcessor.from_pretrained(**where)
    except LOAD_ERRORS as error:
        raise not_loaded(spec, error) from error
    if not (hasattr(model, "get_text_features") and hasattr(model, "get_image_features")):
        raise ModelError(f"{spec} gives no text and image features: it is no embedder", spec)
    towers = _TransformersTowers(
        (model if placed else model.to(device)).eval(),
        tokenizer,
        image_processor,
        int(facts.card["context_length"]),
        str.lower if facts.card.get("case") == "lower" else str,
    )
    return DualEncoder(towers, facts)


def examine(facts: ModelFacts) -> None:
    """Raise ModelError as `load` would; reads no weights, and downloads none."""
    if local_weights(parse_spec(facts.spec)):
        load(facts.spec, torch.device("meta"))
        return
    where = pinned(parse_spec(facts.spec).source)
    try:
        AutoTokenizer.from_pretrained(**where)
        AutoImageProcessor.from_pretrained(**where)
    except LOAD_ERRORS as error:
        raise not_loaded(facts.spec, error) from error


class _TransformersTowers:
    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        image_processor: Callable[..., Mapping[str, Tensor]],
        context_length: int,
        cased: Callable[[str], str],
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._plain = PlainText(tokenizer)
        self._image_processor = image_processor
        self._context_length = context_length
        self._cased = cased
        self._lock = Lock()

    def prepare_texts(self, texts: Sequence[str]) -> TokenizedTexts[Inputs]:
        # The tokenizer keeps the length limit of a call as state.
        with self._lock:
            plain = self._plain([self._cased(text) for text in texts])
            uncut = self._tokenizer(plain, verbose=False)["input_ids"]
            # SigLIP was trained on texts padded to the full context; to CLIP it is all the same.
            cut = self._tokenizer(
                plain,
                truncation=True,
                padding="max_length",
                max_length=self._context_length,
                return_tensors="pt",
            )
        return TokenizedTexts(inputs=dict(cut), lengths=tuple(len(ids) for ids in uncut))

    def prepare_image(self, image: Image.Image) -> Inputs:
        return dict(self._image_processor(images=[image], return_tensors="pt"))

    def join_images(self, images: Sequence[Inputs]) -> Inputs:
        return {name: torch.cat([image[name] for image in images]) for name in images[0]}

    def encode_texts(self, inputs: Inputs) -> Tensor:
        return self._pooled("get_text_features", inputs)

    def encode_images(self, inputs: Inputs) -> Tensor:
        return self._pooled("get_image_features", inputs)

    def _pooled(self, method: str, inputs: Inputs) -> Tensor:
        reference = next(self._model.parameters())
        moved = {
            name: value.to(reference.device, reference.dtype)
            if value.is_floating_point()
            else value.to(reference.device)
            for name, value in inputs.items()
        }
        output: Any = getattr(self._model, method)(**moved)
        # Code beside the weights may be older than the library's own, and return them bare.
        features: Tensor = output if isinstance(output, Tensor) else output.pooler_output
        return features
