"""Describe models from their files, for planning: no weights are loaded.

The same functions name the model when a worker loads it, so both get one fingerprint or the
difference is real.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from nightshift.models.checkpoints.dual_encoders import (
    identify_hf,
    identify_open_clip,
    model_type_of,
)
from nightshift.models.checkpoints.extras import require_worker_packages
from nightshift.models.checkpoints.files import hf_config
from nightshift.models.checkpoints.rewritten import rewritten, rewritten_embedding
from nightshift.models.checkpoints.spec import ModelSpec, parse_spec
from nightshift.schema.errors import ConfigurationError, ModelError
from nightshift.schema.identity import DECODING_VERSION, fingerprint
from nightshift.schema.models import ModelFacts
from nightshift.schema.params import EmbedderParams, ScorerParams
from nightshift.scoring.methods.freeret_embedding import digest
from nightshift.scoring.methods.registry import framings_of, tie_framing
from nightshift.scoring.mixing import MIXING_WEIGHTS

__all__ = [
    "FAMILIES",
    "describe_embedder",
    "describe_embedder_vision",
    "describe_scorer",
    "describe_vision",
]

#: The `model_type` of transformers of each family that has a module: each is named by it.
FAMILIES: tuple[str, ...] = tuple(
    sorted(file.stem for file in (Path(__file__).parent.parent / "families").glob("[!_]*.py"))
)

# Raised when a change of ours alters the numbers that the same weights give.
_EMBEDDER_VERSION = 1
_SCORER_VERSION = 1
_VISION_VERSION = 1

# Families whose images have features for several layers where a configuration does not say.
_DEEP_BY_DEFAULT = {"qwen3_vl", "qwen3_vl_moe"}
_TRUNCATION = "each text to the model's context, with a notice"


def describe_embedder(spec: str) -> ModelFacts:
    """Name an embedder.

    Args:
        spec: As `parse_spec` reads it; float32 unless it says otherwise, on every device, but for
            `freeret`, which is a scorer's model: see `describe_scorer`.

    Raises:
        ModelError: It is malformed, its files are missing, or it is no embedder.
    """
    parsed = parse_spec(spec)
    if parsed.embedding is not None:
        return _describe_freeret(parsed, parsed.embedding)
    identify = identify_open_clip if parsed.library == "open_clip" else identify_hf
    identity, dim, context_length = identify(parsed)
    card = {
        "kind": "embedder",
        "library": parsed.library,
        "version": _EMBEDDER_VERSION,
        "decoding": DECODING_VERSION,
        **identity,
        "precision": parsed.precision or "float32",
        "mixing": {role: list(weights) for role, weights in MIXING_WEIGHTS.items()},
        "truncation": _TRUNCATION,
        "context_length": context_length,
    }
    return ModelFacts(
        kind="embedder", spec=str(parsed), fingerprint=fingerprint(card), card=card, dim=dim
    )


def describe_scorer(spec: str, params: ScorerParams) -> ModelFacts:
    """Name a scorer: a multimodal LLM, a framing, and everything else that changes a score.

    Args:
        spec: As `parse_spec` reads it. Without a precision, the planner's machine decides:
            bfloat16 where it has an NVIDIA GPU, else float32; the returned `spec` says which, so
            that every worker computes in the same.
        params: Method, framing, pixel limits and enhancement.

    Raises:
        ModelError: It is malformed, its files are missing, or its family is not known.
    """
    parsed = parse_spec(spec)
    if parsed.library != "hf":
        raise ModelError(f"{spec!r}: a scorer is loaded by transformers; write hf:MODEL", spec)
    canonical, config, weights = _multimodal(parsed)
    rules = [rule for rule in (*framings_of(params), tie_framing(params)) if rule is not None]
    card = {
        "kind": "scorer",
        "version": _SCORER_VERSION,
        "decoding": DECODING_VERSION,
        **weights,
        **rewritten(config, rules, params.enhancement),
        "framings": [rule.digest for rule in rules],
        "params": params.model_dump(mode="json"),
    }
    return ModelFacts(kind="scorer", spec=str(canonical), fingerprint=fingerprint(card), card=card)


def describe_vision(
    spec: str,
    *,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    long_side: int | None = None,
) -> ModelFacts:
    """Name the vision tower of a scorer: all scorers of one model and these limits share it.

    Args:
        spec: As for `describe_scorer`.
        min_pixels: Of a resized image, as the scorer has it.
        max_pixels: The same.
        long_side: What the longer side is first scaled to, as the scorer has it.

    Raises:
        ModelError: As for `describe_scorer`.
    """
    parsed = parse_spec(spec)
    if parsed.library != "hf":
        raise ModelError(f"{spec!r}: a scorer is loaded by transformers; write hf:MODEL", spec)
    return _describe_vision(
        parsed, min_pixels=min_pixels, max_pixels=max_pixels, long_side=long_side
    )


def describe_embedder_vision(spec: str) -> ModelFacts | None:
    """Name the vision tower that an embedder shares with scorers; None where it shares none.

    Args:
        spec: As for `describe_embedder`, which raises the same.
    """
    parsed = parse_spec(spec)
    return None if parsed.embedding is None else _vision_of(parsed, parsed.embedding)


def _vision_of(parsed: ModelSpec, params: EmbedderParams) -> ModelFacts:
    scorer = replace(parsed, library="hf", embedding=None)
    return _describe_vision(scorer, min_pixels=params.min_pixels, max_pixels=params.max_pixels)


def _describe_vision(
    parsed: ModelSpec,
    *,
    min_pixels: int | None,
    max_pixels: int | None,
    long_side: int | None = None,
) -> ModelFacts:
    if min_pixels is not None and max_pixels is not None and min_pixels > max_pixels:
        raise ConfigurationError(
            f"no image has at least {min_pixels:,} and at most {max_pixels:,} pixels: lower "
            "min_pixels, or raise max_pixels"
        )
    canonical, config, weights = _multimodal(parsed)
    card = {
        "kind": "vision",
        "version": _VISION_VERSION,
        "decoding": DECODING_VERSION,
        **weights,
        "min_pixels": min_pixels,
        "max_pixels": max_pixels,
        **({} if long_side is None else {"long_side": long_side}),
    }
    return ModelFacts(
        kind="vision",
        spec=str(canonical),
        fingerprint=fingerprint(card),
        card=card,
        # Features for deeper layers stand behind the first ones.
        dim=_width(config) * (1 + _n_deepstack(config)),
    )


def _describe_freeret(parsed: ModelSpec, params: EmbedderParams) -> ModelFacts:
    canonical, config, weights = _multimodal(parsed)
    card = {
        "kind": "embedder",
        "library": "freeret",
        "version": _EMBEDDER_VERSION,
        "decoding": DECODING_VERSION,
        **weights,
        # Whose stored tokens it may be shown.
        "vision": _vision_of(parsed, params).fingerprint,
        "prompts": digest(params),
        **rewritten_embedding(config),
        "params": params.model_dump(mode="json"),
    }
    return ModelFacts(
        kind="embedder",
        spec=str(canonical),
        fingerprint=fingerprint(card),
        card=card,
        dim=_width(config),
    )


def _multimodal(parsed: ModelSpec) -> tuple[ModelSpec, dict[str, Any], dict[str, Any]]:
    """The specification with its precision, the configuration, and what names the weights.

    Whatever has the same `weights` in its card can share one copy of them.
    """
    precision = parsed.precision or ("bfloat16" if _has_gpu() else "float32")
    config, identity = hf_config(parsed)
    model_type = model_type_of(config, parsed)
    if model_type not in FAMILIES:
        known = ", ".join(FAMILIES)
        spec = str(parsed)
        raise ModelError(f"{spec!r} is of family {model_type!r}; known scorers: {known}", spec)
    facts = {"family": model_type, **identity, "precision": precision}
    return replace(parsed, precision=precision), config, {**facts, "weights": fingerprint(facts)}


def _width(config: dict[str, Any]) -> int:
    text = config.get("text_config") or config
    if "hidden_size" in text:
        return int(text["hidden_size"])
    return int(_with_defaults(config, "hidden_size").get_text_config().hidden_size)


def _n_deepstack(config: dict[str, Any]) -> int:
    """Count the layers that get visual features of their own (DeepStack)."""
    name = "deepstack_visual_indexes"
    vision = config.get("vision_config", {})
    if name not in vision and config["model_type"] in _DEEP_BY_DEFAULT:
        return len(getattr(_with_defaults(config, name).vision_config, name))
    return len(vision.get(name, ()))


def _with_defaults(config: dict[str, Any], missing: str) -> Any:  # noqa: ANN401 - as transformers
    """Return the configuration with the values that its file leaves out as defaults.

    Args:
        config: As its file says.
        missing: The value that is needed and left out.

    Raises:
        ModelError: transformers, which knows the defaults, is not installed.
    """
    require_worker_packages(
        f"a model of family {config['model_type']!r}",
        f"look up {missing}, which its config.json leaves out",
    )
    from transformers import AutoConfig  # noqa: PLC0415 - takes a second, and is rarely needed

    return AutoConfig.for_model(**config)


def _has_gpu() -> bool:
    # Asking torch would load it, and may initialise CUDA before a fork.
    return Path("/proc/driver/nvidia/version").exists()
