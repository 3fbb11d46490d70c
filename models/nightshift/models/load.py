"""Load a model by its specification, as a worker does."""

from importlib import import_module

import torch

from nightshift.models.describe import FAMILIES, describe_scorer
from nightshift.models.embedder import Embedder
from nightshift.models.scorer import Scorer
from nightshift.models.spec import parse_spec
from nightshift.schema.errors import ConfigurationError
from nightshift.schema.runs import ScorerParams

__all__ = ["load_embedder", "load_scorer", "pick_device", "release_device_memory"]


def load_embedder(spec: str, *, device: str = "auto") -> Embedder:
    """Load an embedder.

    Args:
        spec: As `describe_embedder` takes it.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        ModelError: It cannot be loaded.
    """
    # Each library takes seconds to import: only the one that is asked for.
    library = import_module(f"nightshift.models.embedders.{parse_spec(spec).library}")
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
    family = import_module(FAMILIES[facts.card["family"]])
    pairs = import_module("nightshift.models.pairs")
    scorer: Scorer = pairs.bind(family.load(facts, pick_device(device)), params, facts.fingerprint)
    return scorer


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; `auto` is the first GPU, or the CPU where there is none.

    Raises:
        ConfigurationError: It is malformed, or there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigurationError(f"--device {name!r}: auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigurationError(
            f"--device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices"
        )
    return device


def release_device_memory() -> None:
    """Give memory of dropped models back to the device; does not initialise it."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
