"""The facts about a model that planning needs; the room `models` collects them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from nightshift.schema.params import ScorerParams, TokenParams

__all__ = ["ModelFacts", "ModelInUse", "ModelKind"]

ModelKind = Literal["embedder", "scorer", "vision"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """The name and the fingerprint of a model, without its weights."""

    kind: ModelKind
    #: As the operator names it, such as `open_clip:ViT-B-32/openai` or `hf:Qwen/Qwen2.5-VL-7B`.
    spec: str
    #: Stable name of weights, configuration, preprocessing, precision and method parameters.
    fingerprint: str
    #: The JSON-serialisable facts that the fingerprint is computed from.
    card: Mapping[str, Any]
    #: Length of an embedding or of a visual token; 0 for a scorer.
    dim: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInUse:
    """A model that runs or indexes use, with the parameters of their plans."""

    kind: ModelKind
    spec: str
    fingerprint: str
    #: Such as `run 7` or `index nightshift_1_c3ae_v2`.
    used_by: tuple[str, ...]
    #: Whether an unfinished run needs it; an index needs it only for the next search.
    waited_for: bool
    #: Parameters of a scorer.
    scorer: ScorerParams | None = None
    #: Parameters of a vision tower.
    limits: TokenParams | None = None
