"""What the planner must know of a model; finding it out needs torch and is done by `models`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["ModelFacts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """A model by name and fingerprint, without its weights."""

    kind: Literal["embedder", "scorer", "vision"]
    #: As the operator names it, such as `open_clip:ViT-B-32/openai` or `hf:Qwen/Qwen2.5-VL-7B`.
    spec: str
    #: Stable name of weights, configuration, preprocessing, precision and method parameters.
    fingerprint: str
    #: What the fingerprint is made of, JSON-serialisable.
    card: Mapping[str, Any]
    #: Length of an embedding or of a visual token; 0 for a scorer.
    dim: int = 0
