"""Load models by their specifications, and bind loaded models to their uses.

Imports of torch and of the model libraries take seconds, so each function imports what it uses.
"""

import logging
from typing import TYPE_CHECKING

from nightshift.models.checkpoints.describe import describe_embedder, describe_scorer
from nightshift.models.checkpoints.extras import require_worker_packages
from nightshift.models.checkpoints.spec import parse_spec
from nightshift.schema.models import ModelFacts
from nightshift.schema.params import ScorerParams

if TYPE_CHECKING:
    from nightshift.models.answer import Answerer
    from nightshift.models.embedders.protocol import Embedder
    from nightshift.models.engine.family import Family
    from nightshift.models.inputs.codecs.codec import Codec
    from nightshift.models.scorers.protocol import Scorer
    from nightshift.models.vision import VisionTower

__all__ = [
    "bind_answerer",
    "bind_embedder",
    "bind_scorer",
    "bind_vision",
    "examine_embedder",
    "load_embedder",
    "load_family",
    "load_scorer",
]

_log = logging.getLogger(__name__)


def load_embedder(spec: str, *, device: str = "auto") -> "Embedder":
    """Load an embedder.

    Args:
        spec: As `describe_embedder` takes it.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        ModelError: It cannot be loaded.
    """
    parsed = parse_spec(spec)
    facts = describe_embedder(spec)
    if parsed.embedding is not None:
        return bind_embedder(load_family(facts, device=device), facts)
    require_worker_packages(spec, "load it")
    from nightshift.models.devices import pick_device

    if parsed.library == "open_clip":
        from nightshift.models.embedders import open_clip

        return open_clip.load(spec, pick_device(device))
    from nightshift.models.embedders import hf

    return hf.load(spec, pick_device(device))


def examine_embedder(facts: ModelFacts) -> None:
    """Check that a dual encoder can be loaded; reads no weights, and downloads none.

    Args:
        facts: Of an embedder that is no multimodal LLM.

    Raises:
        ModelError: As `load_embedder`.
    """
    require_worker_packages(facts.spec, "load it")
    if parse_spec(facts.spec).library == "open_clip":
        from nightshift.models.embedders import open_clip

        open_clip.examine(facts)
    else:
        from nightshift.models.embedders import hf

        hf.examine(facts)


def load_scorer(spec: str, params: ScorerParams, *, device: str = "auto") -> "Scorer":
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
        facts: Of a scorer, a vision tower, or an embedder that is a multimodal LLM.
        device: `auto`, `cpu`, `cuda` or `cuda:N`; on `meta` its tensors have shapes but no numbers,
            and no weights are read.
        compiled: Whether its layers go through `torch.compile`.

    Raises:
        ModelError: It cannot be loaded, or not compiled.
    """
    require_worker_packages(facts.spec, "load it")
    import torch

    from nightshift.models import families
    from nightshift.models.devices import pick_device

    place = torch.device("meta") if device == "meta" else pick_device(device)
    family = families.load(facts, place)
    if compiled:
        from nightshift.models.engine.compiled import compile_layers

        compile_layers(family.decoder)
    _log.info("%s: %s", facts.spec, family.report.text())
    return family


def bind_embedder(family: "Family", facts: ModelFacts, codec: "Codec | None" = None) -> "Embedder":
    """Make FreeRet's embedder over a loaded model; it shows items through a codec if one is given.

    Raises:
        ModelError: The model has no state at the site.
    """
    from nightshift.models.embedders.freeret import FreeRetEmbedder

    params = parse_spec(facts.spec).embedding
    assert params is not None
    return FreeRetEmbedder(family, params, facts, codec)


def bind_scorer(
    family: "Family", params: ScorerParams, facts: ModelFacts, codec: "Codec | None" = None
) -> "Scorer":
    """Bind a method to a loaded model; it shows images through a codec if one is given.

    Raises:
        ModelError: A label is not one token of the model.
    """
    from nightshift.models.scorers.binding import bind

    return bind(family, params, facts.fingerprint, codec)


def bind_vision(family: "Family", facts: ModelFacts) -> "VisionTower":
    """The vision tower of a loaded model."""
    from nightshift.models.vision import bind

    return bind(family, facts)


def bind_answerer(family: "Family", params: ScorerParams) -> "Answerer":
    """Generation over a loaded model, which is shown images as the scorer of `params` is."""
    from nightshift.models.answer import Answerer
    from nightshift.models.engine.family import PixelLimits

    limits = PixelLimits(
        min_pixels=params.min_pixels, max_pixels=params.max_pixels, long_side=params.long_side
    )
    return Answerer(family, limits)
