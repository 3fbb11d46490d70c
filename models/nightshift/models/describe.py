"""What a planner must know of a model, read off its files: no weights are loaded.

The same functions name the model when a worker loads it, so both get one fingerprint or the
difference is real.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from importlib import import_module, util
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HFValidationError

from nightshift.models.spec import Builtin, Directory, Hub, ModelSpec, parse_spec
from nightshift.schema.errors import ConfigurationError, ModelError
from nightshift.schema.identity import fingerprint
from nightshift.schema.models import ModelFacts
from nightshift.schema.runs import EmbedderParams, ScorerParams
from nightshift.scoring.methods.freeret_embedding import digest
from nightshift.scoring.methods.registry import framings_of, tie_framing
from nightshift.scoring.mixing import MIXING_WEIGHTS

__all__ = [
    "FAMILIES",
    "describe_embedder",
    "describe_embedder_vision",
    "describe_scorer",
    "describe_vision",
    "open_clip_checkpoint",
    "open_clip_config",
    "revision",
]

#: transformers' `model_type` → our module that reads it: each is named by what it reads.
FAMILIES: Mapping[str, str] = {
    file.stem: f"nightshift.models.families.{file.stem}"
    for file in sorted((Path(__file__).parent / "families").glob("[!_]*.py"))
}

# Raised when a change of ours alters the numbers that the same weights give.
_EMBEDDER_VERSION = 1
_SCORER_VERSION = 1
_VISION_VERSION = 1

_FILES = (".json", ".safetensors", ".jinja", ".txt", ".model", ".py")
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
    where = _open_clip if parsed.library == "open_clip" else _hf_embedder
    identity, dim, context_length = where(parsed)
    card = {
        "kind": "embedder",
        "library": parsed.library,
        "version": _EMBEDDER_VERSION,
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
    canonical, _, weights = _multimodal(parsed)
    asked = (*framings_of(params), tie_framing(params))
    card = {
        "kind": "scorer",
        "version": _SCORER_VERSION,
        **weights,
        "framings": [one.digest for one in asked if one is not None],
        "params": params.model_dump(mode="json"),
    }
    return ModelFacts(kind="scorer", spec=str(canonical), fingerprint=fingerprint(card), card=card)


def describe_vision(
    spec: str, *, min_pixels: int | None = None, max_pixels: int | None = None
) -> ModelFacts:
    """Name the vision tower of a scorer: all scorers of one model and these limits share it.

    Args:
        spec: As for `describe_scorer`.
        min_pixels: Of a resized picture, as the scorer has it.
        max_pixels: The same.

    Raises:
        ModelError: As for `describe_scorer`.
    """
    parsed = parse_spec(spec)
    if parsed.library != "hf":
        raise ModelError(f"{spec!r}: a scorer is loaded by transformers; write hf:MODEL", spec)
    return _describe_vision(parsed, min_pixels=min_pixels, max_pixels=max_pixels)


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
    parsed: ModelSpec, *, min_pixels: int | None, max_pixels: int | None
) -> ModelFacts:
    if min_pixels is not None and max_pixels is not None and min_pixels > max_pixels:
        raise ConfigurationError(
            f"no picture has at least {min_pixels:,} and at most {max_pixels:,} pixels: lower "
            "min_pixels, or raise max_pixels"
        )
    canonical, config, weights = _multimodal(parsed)
    card = {
        "kind": "vision",
        "version": _VISION_VERSION,
        **weights,
        "min_pixels": min_pixels,
        "max_pixels": max_pixels,
    }
    text = config.get("text_config") or config
    # Features for deeper layers stand behind the first ones.
    n_deep = len(config.get("vision_config", {}).get("deepstack_visual_indexes", ()))
    return ModelFacts(
        kind="vision",
        spec=str(canonical),
        fingerprint=fingerprint(card),
        card=card,
        dim=int(text["hidden_size"]) * (1 + n_deep),
    )


def _describe_freeret(parsed: ModelSpec, params: EmbedderParams) -> ModelFacts:
    canonical, config, weights = _multimodal(parsed)
    text = config.get("text_config") or config
    card = {
        "kind": "embedder",
        "library": "freeret",
        "version": _EMBEDDER_VERSION,
        **weights,
        # Whose stored tokens it may be shown.
        "vision": _vision_of(parsed, params).fingerprint,
        "prompts": digest(params),
        "params": params.model_dump(mode="json"),
    }
    return ModelFacts(
        kind="embedder",
        spec=str(canonical),
        fingerprint=fingerprint(card),
        card=card,
        dim=int(text["hidden_size"]),
    )


def _multimodal(parsed: ModelSpec) -> tuple[ModelSpec, dict[str, Any], dict[str, Any]]:
    """The specification with its precision, the configuration, and what names the weights.

    Whatever has the same `weights` in its card can share one copy of them.
    """
    precision = parsed.precision or ("bfloat16" if _has_gpu() else "float32")
    config, identity = _hf_files(parsed)
    model_type = config.get("model_type")
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        spec = str(parsed)
        raise ModelError(f"{spec!r} is of family {model_type!r}; known scorers: {known}", spec)
    facts = {"family": model_type, **identity, "precision": precision}
    return replace(parsed, precision=precision), config, {**facts, "weights": fingerprint(facts)}


def revision(hub: Hub) -> str:
    """The commit that the hub's default branch points to, or the newest one in the local cache.

    Raises:
        ModelError: Neither the hub nor the cache has it.
    """
    return _hub_file(hub, "config.json").parent.name


def open_clip_checkpoint(source: Builtin | Directory | Hub) -> Path:
    """The safetensors file with the weights, downloaded if need be.

    Raises:
        ModelError: There is none; other formats can carry code and are not read.
    """
    match source:
        case Directory(path=path):
            found = sorted(path.glob("*.safetensors"))
            named = [one for one in found if one.name.startswith("open_clip")]
            candidates = named or found
            if len(candidates) != 1:
                names = [one.name for one in candidates]
                raise ModelError(
                    f"{path} must hold one .safetensors checkpoint, found {names}", str(path)
                )
            return candidates[0]
        case Hub():
            return _hub_file(source, "open_clip_model.safetensors")
        case Builtin(architecture=architecture, weights=weights):
            path = Path(weights) if Path(weights).is_file() else _tagged(architecture, weights)
            if path.suffix != ".safetensors":
                raise ModelError(
                    f"the weights {weights!r} of {architecture} come as {path.suffix}; only "
                    "safetensors are read: convert them, and give the file's path",
                    architecture,
                )
            return path


def _open_clip(spec: ModelSpec) -> tuple[dict[str, Any], int, int]:
    config = open_clip_config(spec.source)
    identity: dict[str, Any] = {"config": config}
    match spec.source:
        case Directory(path=path):
            identity["files"] = _digests(path)
        case Builtin(weights=weights) as source:
            if not Path(weights).is_file():
                # A tag brings its own preprocessing along.
                identity["tag"] = weights
            identity["weights"] = _file_digest(open_clip_checkpoint(source))
        case Hub() as source:
            identity["weights"] = _file_digest(open_clip_checkpoint(source))
    model = config.get("model_cfg", config)
    context = model["text_cfg"].get("context_length", 77)
    return identity, int(model["embed_dim"]), int(context)


def open_clip_config(source: Builtin | Directory | Hub) -> dict[str, Any]:
    """What open_clip's configuration of a model says.

    Raises:
        ModelError: There is none.
    """
    match source:
        case Directory(path=path):
            return _read_json(path / "open_clip_config.json")
        case Hub():
            return _read_json(_hub_file(source, "open_clip_config.json"))
        case Builtin(architecture=architecture):
            # The package's own file, found without importing it: that would import torch.
            found = util.find_spec("open_clip")
            assert found is not None
            assert found.submodule_search_locations
            folder = Path(found.submodule_search_locations[0]) / "model_configs"
            file = folder / f"{architecture}.json"
            if not file.is_file():
                raise ModelError(
                    f"open_clip knows no architecture {architecture!r}; "
                    "its `list_models()` prints those it does",
                    architecture,
                )
            return _read_json(file)


def _tagged(architecture: str, tag: str) -> Path:
    pretrained = import_module("open_clip.pretrained")
    config = pretrained.get_pretrained_cfg(architecture, tag)
    if not config:
        tags = ", ".join(pretrained.list_pretrained_tags_by_model(architecture)) or "none"
        raise ModelError(
            f"{architecture} has no weights tagged {tag!r} and there is no such file; "
            f"known tags: {tags}",
            f"{architecture}/{tag}",
        )
    try:
        return Path(pretrained.download_pretrained(config))
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"the weights {architecture}/{tag} cannot be downloaded: {error}",
            f"{architecture}/{tag}",
        ) from error


def _hf_embedder(spec: ModelSpec) -> tuple[dict[str, Any], int, int]:
    config, identity = _hf_files(spec)
    text = config.get("text_config", {})
    match config.get("model_type"):
        case "siglip" | "siglip2":
            dim = text.get("projection_size") or text.get("hidden_size", 768)
            context = text.get("max_position_embeddings", 64)
        case model_type if model_type == "clip" or "projection_dim" in config:
            dim = config.get("projection_dim", 512)
            context = text.get("max_position_embeddings", 77)
        case other:
            raise ModelError(f"{spec} is of type {other!r}: no text–image embedder", str(spec))
    return identity, int(dim), int(context)


def _hf_files(spec: ModelSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration, and what tells these weights from all others."""
    match spec.source:
        case Directory(path=path):
            return _read_json(path / "config.json"), {"files": _digests(path)}
        case Hub(name=name) as hub:
            file = _hub_file(hub, "config.json")
            return _read_json(file), {"hub": name, "revision": file.parent.name}
        case Builtin():
            raise ModelError(f"{spec} is no model of transformers", str(spec))


def _hub_file(hub: Hub, name: str) -> Path:
    try:
        return Path(hf_hub_download(hub.name, name))
    except (OSError, HFValidationError) as error:
        raise ModelError(
            f"{hub.name}: {name} is neither on the hub nor in the local cache: {error}", hub.name
        ) from error


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}", str(file)) from error
    return value


def _digests(directory: Path) -> dict[str, str]:
    files = sorted(file for file in directory.iterdir() if file.suffix in _FILES)
    if not any(file.suffix == ".safetensors" for file in files):
        raise ModelError(f"{directory} holds no .safetensors weights", str(directory))
    return {file.name: _file_digest(file) for file in files}


def _file_digest(file: Path) -> str:
    stat = file.stat()
    return _digest_of_version(file, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest_of_version(file: Path, _size: int, _mtime_ns: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _has_gpu() -> bool:
    # Asking torch would load it, and may initialise CUDA before a fork.
    return Path("/proc/driver/nvidia/version").exists()
