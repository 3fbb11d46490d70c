"""The files of a model, wherever they lie: a directory, the hub's cache, or a library's own."""

import hashlib
import json
from functools import lru_cache
from importlib import import_module, util
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HFValidationError

from nightshift.models.spec import Builtin, Directory, Hub, ModelSpec
from nightshift.schema.errors import ModelError

__all__ = [
    "digests",
    "file_digest",
    "hf_config",
    "open_clip_checkpoint",
    "open_clip_config",
    "revision",
]

_NAMED = (".json", ".safetensors", ".jinja", ".txt", ".model", ".py")


def hf_config(spec: ModelSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration of a model of transformers, and what tells its weights from all others.

    Raises:
        ModelError: It has none, or its files are missing.
    """
    match spec.source:
        case Directory(path=path):
            return _read_json(path / "config.json"), {"files": digests(path)}
        case Hub(name=name) as hub:
            file = _hub_file(hub, "config.json")
            return _read_json(file), {"hub": name, "revision": file.parent.name}
        case Builtin():
            raise ModelError(f"{spec} is no model of transformers", str(spec))


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


def revision(hub: Hub) -> str:
    """The commit that the hub's default branch points to, or the newest one in the local cache.

    Raises:
        ModelError: Neither the hub nor the cache has it.
    """
    return _hub_file(hub, "config.json").parent.name


def digests(directory: Path) -> dict[str, str]:
    """SHA-256 of each file that could change what a model computes, by name.

    Raises:
        ModelError: There are no safetensors weights among them.
    """
    files = sorted(file for file in directory.iterdir() if file.suffix in _NAMED)
    if not any(file.suffix == ".safetensors" for file in files):
        raise ModelError(f"{directory} holds no .safetensors weights", str(directory))
    return {file.name: file_digest(file) for file in files}


def file_digest(file: Path) -> str:
    """SHA-256 of a file, hex; remembered until the file changes."""
    stat = file.stat()
    return _digest_of_version(file, stat.st_size, stat.st_mtime_ns)


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


@lru_cache(maxsize=256)
def _digest_of_version(file: Path, _size: int, _mtime_ns: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
