"""Load a model by its specification, as a worker does."""

import logging
import re
from importlib import import_module
from typing import TYPE_CHECKING

import torch

from nightshift.models.checkpoints.describe import FAMILIES, describe_embedder, describe_scorer
from nightshift.models.checkpoints.spec import parse_spec
from nightshift.models.embedders.protocol import Embedder
from nightshift.models.inputs.codecs.codec import Codec
from nightshift.models.scorers.protocol import Scorer
from nightshift.schema.errors import ConfigurationError
from nightshift.schema.models import ModelFacts
from nightshift.schema.params import ScorerParams

if TYPE_CHECKING:
    from nightshift.models.answer import Answerer
    from nightshift.models.engine.family import Family
    from nightshift.models.vision import VisionTower

__all__ = [
    "bind_answerer",
    "bind_embedder",
    "bind_scorer",
    "bind_vision",
    "load_embedder",
    "load_family",
    "load_scorer",
    "pick_device",
    "release_device_memory",
    "why_singly",
]

_log = logging.getLogger(__name__)

_DEVICE = re.compile(r"auto|cpu|cuda(:(0|[1-9][0-9]{0,3}))?")


def load_embedder(spec: str, *, device: str = "auto") -> Embedder:
    """Load an embedder.

    Args:
        spec: As `describe_embedder` takes it.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        ModelError: It cannot be loaded.
    """
    parsed = parse_spec(spec)
    if parsed.embedding is not None:
        facts = describe_embedder(spec)
        return bind_embedder(load_family(facts, device=device), facts)
    # Each library takes seconds to import: only the one that is asked for.
    library = import_module(f"nightshift.models.embedders.{parsed.library}")
    embedder: Embedder = library.load(spec, pick_device(device))
    return embedder


def load_scorer(spec: str, params: ScorerParams, *, device: str = "auto") -> Scorer:
    """Load a multimodal LLM and bind it to a method.

    Args:
        spec: As `describe_scorer` returned it: its precision is part of the fingerprint.
        params: Framing, pixel limits and enhancement.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        ModelError: It cannot be loaded, or a label is not one token of it.
    """
    facts = describe_scorer(spec, params)
    return bind_scorer(load_family(facts, device=device), params, facts)


def load_family(facts: ModelFacts, *, device: str = "auto", compiled: bool = False) -> "Family":
    """Load a multimodal LLM, to be bound as often as needed.

    Args:
        facts: Of a scorer, or of an embedder that is one's model.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        compiled: Whether its layers go through `torch.compile`.

    Raises:
        ModelError: It cannot be loaded, or not compiled.
    """
    library = import_module(FAMILIES[facts.card["family"]])
    # On `meta` tensors have shapes, but no numbers.
    where = torch.device("meta") if device == "meta" else pick_device(device)
    family: Family = library.load(facts, where)
    if compiled:
        import_module("nightshift.models.engine.compiled").compile_layers(family.decoder)
    _log.info("%s: %s", facts.spec, family.report.text())
    return family


def bind_embedder(family: "Family", facts: ModelFacts, codec: Codec | None = None) -> Embedder:
    """FreeRet's embedder over a loaded model, which shows items by way of a codec if one is given.

    Raises:
        ModelError: The model has no state at the site.
    """
    freeret = import_module("nightshift.models.embedders.freeret")
    params = parse_spec(facts.spec).embedding
    embedder: Embedder = freeret.FreeRetEmbedder(family, params, facts, codec)
    return embedder


def bind_scorer(
    family: "Family", params: ScorerParams, facts: ModelFacts, codec: Codec | None = None
) -> Scorer:
    """A method over a loaded model, which shows pictures by way of a codec where one is given.

    Raises:
        ModelError: A label is not one token of the model.
    """
    binding = import_module("nightshift.models.scorers.binding")
    scorer: Scorer = binding.bind(family, params, facts.fingerprint, codec)
    return scorer


def bind_vision(family: "Family", facts: ModelFacts) -> "VisionTower":
    """The vision tower of a loaded model."""
    vision = import_module("nightshift.models.vision")
    tower: VisionTower = vision.bind(family, facts)
    return tower


def bind_answerer(family: "Family", params: ScorerParams) -> "Answerer":
    """Generation over a loaded model, which sees pictures as the scorer of `params` does."""
    answer = import_module("nightshift.models.answer")
    limits = import_module("nightshift.models.engine.family").PixelLimits(
        min_pixels=params.min_pixels, max_pixels=params.max_pixels, long_side=params.long_side
    )
    answerer: Answerer = answer.Answerer(family, limits)
    return answerer


def why_singly(family: "Family", params: ScorerParams) -> str | None:
    """Why a loaded model scores each pair of a method by itself; None where they are packed."""
    singly = import_module("nightshift.models.scorers.singly")
    found: str | None = singly.why_singly(family.report, params)
    return found


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; `auto` is the first GPU, or the CPU where there is none.

    Raises:
        ConfigurationError: It is malformed, or there is no such device.
    """
    if not _DEVICE.fullmatch(name):
        raise ConfigurationError(f"--device {name!r}: write auto, cpu, cuda or cuda:N")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        numbers = f"cuda:0 to cuda:{count - 1}" if count else "none"
        raise ConfigurationError(
            f"--device {name!r}: PyTorch finds {count} GPUs on this machine ({numbers}); "
            "`nightshift doctor` says why, and --device cpu works without one"
        )
    return device


def release_device_memory() -> None:
    """Give memory of dropped models back to the device; does not initialise it."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
