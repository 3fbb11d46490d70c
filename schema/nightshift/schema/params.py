"""Parameters of runs: JSON in the ledger, typed here."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
)

from nightshift.schema.records import PartKind

__all__ = [
    "EmbedderParams",
    "EnhancementParams",
    "Frozen",
    "FusionScale",
    "IndexParams",
    "Kinds",
    "MethodName",
    "RerankParams",
    "ScoreName",
    "ScorerParams",
    "TokenParams",
    "kinds_from_text",
    "kinds_to_text",
]

Kinds = frozenset[PartKind]
MethodName = Literal["retllm", "freeret", "indexmllm"]
#: Of the coarse score and the fine one where they are fused: as they are; each from 0 to 1 among
#: the candidates of a query; as log-odds.
FusionScale = Literal["raw", "minmax", "logit"]
#: What of the answer is the score: the log-odds of its two labels; those of the positive label
#: against all other words; a number that the model writes; the place it picks from a list.
ScoreName = Literal["margin_2way", "p_true_full", "number", "listwise"]


class Frozen(BaseModel):
    """Base of what is kept as JSON: immutable, and an unknown key is an error."""

    # Postgres keeps no NaN and no infinity in JSON.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _Quiet(Frozen):
    """Says nothing of a side that is not asked for: fingerprints stay what they were before it."""

    #: What the longer side of an image is scaled to before the limits on its pixels apply.
    long_side: Annotated[int, Field(gt=0, le=16384)] | None = None

    @model_serializer(mode="wrap")
    def _without_what_is_not_asked(self, serialise: SerializerFunctionWrapHandler) -> Any:  # noqa: ANN401 - pydantic's own
        fields = serialise(self)
        if self.long_side is None:
            del fields["long_side"]
        return fields


class EnhancementParams(Frozen):
    """Visual enhancement of RetLLM; defaults as in its released code (methods §1.5, §2.5)."""

    #: `entropy` fires where a layer is uncertain, `never` turns it off, an int forces that layer.
    trigger: Literal["entropy", "never"] | Annotated[int, Field(ge=0)] = "entropy"
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.12
    gamma: Annotated[float, Field(ge=0)] = 0.75
    #: Exclusive layer bounds: fractions of the decoder's depth (5/28 and 16/28 published), or
    #: layer numbers where the upper one exceeds 1.
    window: tuple[float, float] = (5 / 28, 16 / 28)
    top_k: Annotated[int, Field(ge=2)] = 10
    #: What is looked at again: images of both sides, of one side, or all of the prompt.
    memory: Literal["image", "query", "candidate", "all"] = "image"
    lens_norm: Literal["final", "none"] = "final"
    activation: Literal["silu", "identity"] = "silu"
    norm_match: Literal["position", "sequence"] = "position"

    @field_validator("window")
    @classmethod
    def _lower_first(cls, window: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= window[0] < window[1]:
            msg = f"the bounds of a window are at least 0, the lower first; got {window}"
            raise ValueError(msg)
        return window


class ScorerParams(_Quiet):
    """Everything beside the weights that changes a score; part of the scorer's fingerprint."""

    method: MethodName = "retllm"
    #: Whose defaults the other parameters began with.
    preset: Literal["default", "paper", "code"] | None = None
    #: One of the method's.
    framing: str = "retllm"
    score: ScoreName = "margin_2way"
    #: Orders in which a list is asked about, each candidate at another place; a score is the mean.
    list_orders: Annotated[int, Field(ge=1, le=9)] = 1
    #: `swap` asks twice, the second time with the answers exchanged, and takes the mean.
    debias: Literal["none", "swap"] = "none"
    #: Takes from each score what the question gets without query and candidate: no order changes,
    #: but a probability of one half is neutral.
    subtract_prior: bool = False
    #: Asks twice, the second time with the sides exchanged, and takes the mean: two images make
    #: one pair, but two scores.
    symmetrise: bool = False
    #: What the visual tokens of candidates go through before they are shown.
    codec: str = "none"
    #: Digest of its codebook, where it has one.
    codebook: str = ""
    #: Whether those of queries go through it too.
    code_queries: bool = False
    min_pixels: Annotated[int, Field(gt=0)] | None = None
    max_pixels: Annotated[int, Field(gt=0)] | None = None
    enhancement: EnhancementParams = EnhancementParams()


class EmbedderParams(Frozen):
    """Parameters of the FreeRet embedder: everything beside the weights that changes a vector."""

    #: State at the end of the prompt: after the last layer's attention, after its feed-forward
    #: without or with the final norm, or before the last layer.
    site: Literal["attn_L", "mlp_L_prenorm", "mlp_L_postnorm", "mlp_L-1"] = "attn_L"
    #: What the state goes through before the cosine: the RMS norm, with its learnt gains, that
    #: reads it in the model, or the one in front of the head.
    norm: Literal["none", "rms", "final_norm"] = "none"
    #: What the one word that stands for a content is asked for with; each adds to the one before.
    prompt: Literal["e5v", "grounding", "grounding_noise", "full"] = "full"
    task: Literal["retrieval", "caption", "news", "category", "product"] = "retrieval"
    #: What the visual tokens of items go through before they are shown; those of queries never do.
    codec: str = "none"
    #: Digest of its codebook, where it has one.
    codebook: str = ""
    min_pixels: Annotated[int, Field(gt=0)] | None = None
    max_pixels: Annotated[int, Field(gt=0)] | None = None


class IndexParams(Frozen):
    """Parameters of an index run, frozen when it is planned."""

    #: Parts of an item that the embedder sees.
    parts: str = "text,image"


class RerankParams(Frozen):
    """Parameters of a re-ranking run, frozen when it is planned."""

    top_k: Annotated[int, Field(ge=1, le=16384)] = 5
    query_parts: str = "text,image"
    item_parts: str = "text,image"
    #: Step of the score inside which candidates tie; 0 turns the tie-break off.
    quantum: Annotated[float, Field(ge=0, lt=1)] = 0.01
    #: Whether entropy decides ties above one half only; the exact score decides the others.
    tie_guard: bool = True
    #: Weight of the coarse score in the final one; the rest is the probability's.
    fusion: Annotated[float, Field(ge=0, le=1)] = 0.0
    #: On which scale both are before they are added up.
    fusion_scale: FusionScale = "raw"
    #: Share of queries whose pairs are scored without the enhancement too, to see what it changed.
    compare: Annotated[float, Field(ge=0, le=1)] = 0.1
    scorer: ScorerParams = ScorerParams()


class TokenParams(_Quiet):
    """Parameters of a run that makes visual tokens, frozen when it is planned."""

    codec: str = "none"
    min_pixels: Annotated[int, Field(gt=0)] | None = None
    max_pixels: Annotated[int, Field(gt=0)] | None = None


def kinds_to_text(kinds: Kinds) -> str:
    """`text`, `image` or `text,image`, as stored."""
    return ",".join(kind for kind in ("text", "image") if kind in kinds)


def kinds_from_text(value: str) -> Kinds:
    """The inverse of `kinds_to_text`, in any order; ValueError on anything else."""
    names: Sequence[Any] = [name.strip() for name in value.split(",")]
    if not names or any(name not in {"text", "image"} for name in names):
        msg = f"parts must be text, image or text,image; got {value!r}"
        raise ValueError(msg)
    return frozenset(names)
