"""Identify embedders with a text and an image tower by their files, for their fingerprints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nightshift.models.checkpoints.files import (
    digests,
    file_digest,
    hf_config,
    open_clip_checkpoint,
    open_clip_config,
)
from nightshift.models.checkpoints.spec import Builtin, Directory, Hub, ModelSpec
from nightshift.models.checkpoints.unfit import refuse_damaged
from nightshift.schema.errors import ModelError

__all__ = ["identify_hf", "identify_open_clip", "model_type_of"]


def identify_open_clip(spec: ModelSpec) -> tuple[dict[str, Any], int, int]:
    """Identify a model of open_clip by its configuration and the digests of its files.

    Returns:
        The entries of its card, the length of an embedding, and its context in tokens.

    Raises:
        ModelError: Its files are missing, damaged, or describe no such model.
    """
    config = open_clip_config(spec.source)
    identity: dict[str, Any] = {"config": config}
    match spec.source:
        case Directory(path=path):
            identity["files"] = digests(path)
        case Builtin(weights=weights) as source:
            if not Path(weights).is_file():
                # A tag brings its own preprocessing along.
                identity["tag"] = weights
            identity["weights"] = file_digest(open_clip_checkpoint(source))
        case Hub() as source:
            identity["weights"] = file_digest(open_clip_checkpoint(source))
    refuse_damaged([open_clip_checkpoint(spec.source)], str(spec))
    model = config.get("model_cfg", config)
    if not isinstance(model, Mapping) or not {"text_cfg", "embed_dim"} <= set(model):
        raise ModelError(
            f"{spec}: its open_clip_config.json describes no model with text_cfg and embed_dim",
            str(spec),
        )
    context = model["text_cfg"].get("context_length", 77)
    return identity, int(model["embed_dim"]), int(context)


def identify_hf(spec: ModelSpec) -> tuple[dict[str, Any], int, int]:
    """Identify a text–image model of transformers; returns and raises as `identify_open_clip`."""
    config, identity = hf_config(spec)
    text = config.get("text_config", {})
    match model_type_of(config, spec):
        case "siglip" | "siglip2":
            dim = text.get("projection_size") or text.get("hidden_size", 768)
            context = text.get("max_position_embeddings", 64)
            # Both were trained on it, and not every tokenizer of theirs sees to it.
            identity = {**identity, "case": "lower"}
        case model_type if model_type == "clip" or "projection_dim" in config:
            dim = config.get("projection_dim", 512)
            context = text.get("max_position_embeddings", 77)
        case other:
            raise ModelError(f"{spec} is of type {other!r}: no text–image embedder", str(spec))
    return identity, int(dim), int(context)


def model_type_of(config: Mapping[str, Any], spec: ModelSpec) -> str:
    """The `model_type` that a configuration names; ModelError if it names none."""
    named = config.get("model_type")
    if not isinstance(named, str):
        raise ModelError(
            f"{spec}: its config.json names no model_type, which says what kind of model it is: "
            "fetch the file again, or save the model with transformers",
            str(spec),
        )
    return named
