"""What the planner must know of a model; finding it out needs torch and is done by `models`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from nightshift.schema.params import ScorerParams, TokenParams

__all__ = ["ModelFacts", "ModelInUse", "ModelKind"]

ModelKind = Literal["embedder", "scorer", "vision"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """A model by name and fingerprint, without its weights."""

    kind: ModelKind
    #: As the operator names it, such as `open_clip:ViT-B-32/openai` or `hf:Qwen/Qwen2.5-VL-7B`.
    spec: str
    #: Stable name of weights, configuration, preprocessing, precision and method parameters.
    fingerprint: str
    #: What the fingerprint is made of, JSON-serialisable.
    card: Mapping[str, Any]
    #: Length of an embedding or of a visual token; 0 for a scorer.
    dim: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInUse:
    """A model that runs or indexes need, as they were planned with it."""

    kind: ModelKind
    spec: str
    fingerprint: str
    #: Such as `run 7` or `index nightshift_1_c3ae_v2`.
    used_by: tuple[str, ...]
    #: Whether a run waits for it; an index only needs it again when something is searched.
    waited_for: bool
    #: Of a scorer.
    scorer: ScorerParams | None = None
    #: Of a vision tower.
    limits: TokenParams | None = None
