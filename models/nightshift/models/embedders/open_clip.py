"""Embedders of the open_clip library: built-in architectures, local directories, hub models."""

import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from transformers import dynamic_module_utils

from nightshift.models.checkpoints.describe import describe_embedder
from nightshift.models.checkpoints.files import open_clip_checkpoint, open_clip_config
from nightshift.models.checkpoints.load_errors import not_loaded
from nightshift.models.checkpoints.spec import Builtin, Directory, ModelSpec, Precision, parse_spec
from nightshift.models.embedders.dual_encoder import DualEncoder, TokenizedTexts
from nightshift.models.embedders.plain_text import PlainText
from nightshift.schema.models import ModelFacts

__all__ = ["examine", "load"]

_PRECISIONS: dict[Precision | None, str] = {
    None: "fp32",
    "float32": "fp32",
    "bfloat16": "pure_bf16",
    "float16": "pure_fp16",
}
#: What it raises where files are missing, damaged, or do not fit together.
_DAMAGE = (
    RuntimeError, ValueError, LookupError, TypeError, OSError, AssertionError, SafetensorError,
)  # fmt: skip
# Its text towers may be models of transformers, which would ask on the terminal whether code beside
# the weights may run: it may not, and nobody is asked.
dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0
# open_clip's own tokenizer reads these, in any case, out of a caption.
_CONTROL = re.compile(r"<(start_of_text|end_of_text)>", re.IGNORECASE)


def load(spec: str, device: torch.device) -> DualEncoder[Tensor]:
    """Load an embedder.

    Raises:
        ModelError: It is unknown, or its files are missing or do not fit together.
    """
    facts = describe_embedder(spec)
    parsed = parse_spec(spec)
    checkpoint = open_clip_checkpoint(parsed.source)
    try:
        towers = _OpenClip(parsed, str(checkpoint), device)
    except _DAMAGE as error:
        raise not_loaded(spec, error, "open_clip") from error
    return DualEncoder(towers, facts)


def examine(facts: ModelFacts) -> None:
    """Raise ModelError as `load` would; weights are named and measured, but not read."""
    # On this device tensors have shapes, but no numbers.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that numbers went nowhere
        load(facts.spec, torch.device("meta"))


class _OpenClip:
    def __init__(self, spec: ModelSpec, checkpoint: str, device: torch.device) -> None:
        name, weights = _open_clip_names(spec)
        self._device = device
        tag = open_clip.get_pretrained_cfg(name, weights) if weights else {}
        with _without("initialized randomly"):
            self._model = open_clip.create_model(
                name,
                # A tag brings its preprocessing; the weights are read below, safetensors only.
                pretrained=weights,
                load_weights=False,
                pretrained_text=False,
                precision=_PRECISIONS[spec.precision],
                device=device,
                # open_clip only warns where a tag was trained with another activation.
                force_quick_gelu=bool(tag.get("quick_gelu")),
            )
        open_clip.load_checkpoint(self._model, checkpoint, device="cpu")
        self._model.eval()
        self._dtype = next(self._model.parameters()).dtype
        preprocess = PreprocessCfg(**self._model.visual.preprocess_cfg)
        self._preprocess = image_transform_v2(preprocess, is_train=False)
        self._tokenizer = open_clip.get_tokenizer(name, **_no_code(spec))
        self._lock = Lock()
        self._plain: Callable[[Sequence[str]], Sequence[str]] = _without_control
        if not isinstance(self._tokenizer, open_clip.SimpleTokenizer):
            clean = getattr(self._tokenizer, "clean_fn", str)
            self._plain = PlainText(self._tokenizer.tokenizer, clean)

    def prepare_texts(self, texts: Sequence[str]) -> TokenizedTexts[Tensor]:
        # Hugging Face tokenizers keep the length limit of a call as state.
        with self._lock:
            plain = list(self._plain(texts))
            lengths = tuple(self._length(text) for text in plain)
            return TokenizedTexts(inputs=self._tokenizer(plain), lengths=lengths)

    def prepare_image(self, image: Image.Image) -> Tensor:
        pixels: Tensor = self._preprocess(image)
        return pixels

    def join_images(self, images: Sequence[Tensor]) -> Tensor:
        return torch.stack([*images])

    def encode_texts(self, inputs: Tensor) -> Tensor:
        features: Tensor = self._model.encode_text(inputs.to(self._device))
        return features

    def encode_images(self, inputs: Tensor) -> Tensor:
        features: Tensor = self._model.encode_image(inputs.to(self._device, self._dtype))
        return features

    def _length(self, text: str) -> int:
        if isinstance(self._tokenizer, open_clip.SimpleTokenizer):
            return len(self._tokenizer.encode(text)) + 2
        clean = getattr(self._tokenizer, "clean_fn", str)
        return len(self._tokenizer.tokenizer(clean(text), verbose=False)["input_ids"])


def _without_control(texts: Sequence[str]) -> Sequence[str]:
    return [_CONTROL.sub(r"< \1>", text) for text in texts]


def _open_clip_names(spec: ModelSpec) -> tuple[str, str | None]:
    match spec.source:
        case Directory(path=path):
            return f"local-dir:{path}", None
        case Builtin(architecture=architecture, weights=weights):
            return architecture, weights
        case hub:
            return f"hf-hub:{hub}", None


def _no_code(spec: ModelSpec) -> dict[str, bool]:
    """Options that keep a tokenizer of transformers from running code beside the weights."""
    config = open_clip_config(spec.source)
    # open_clip's own tokenizers do not know the word.
    by_transformers = config.get("model_cfg", config)["text_cfg"].get("hf_tokenizer_name")
    return {"trust_remote_code": False} if by_transformers else {}


@contextmanager
def _without(words: str) -> Iterator[None]:
    """Drop the messages that hold these words: they are not true of what we do."""

    def wanted(record: logging.LogRecord) -> bool:
        return words not in record.getMessage()

    # open_clip logs to the root logger.
    root = logging.getLogger()
    root.addFilter(wanted)
    try:
        yield
    finally:
        root.removeFilter(wanted)
