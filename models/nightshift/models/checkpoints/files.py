"""The files of a model, wherever they lie: a directory, the hub's cache, or a library's own."""

import hashlib
from functools import lru_cache
from importlib import util
from pathlib import Path
from typing import Any

from nightshift.models.checkpoints.extras import require_worker_packages
from nightshift.models.checkpoints.hub import cached_folder, hub_file, hub_if_reached
from nightshift.models.checkpoints.snapshot import (
    FileIdentity,
    Snapshot,
    checkpoint_files,
    identity,
    weight_files,
)
from nightshift.models.checkpoints.spec import Builtin, Directory, Hub, ModelSpec
from nightshift.models.checkpoints.unfit import (
    read_object,
    refuse_adapter,
    refuse_damaged,
    refuse_unfit,
    refuse_without_extra,
)
from nightshift.schema.errors import ModelError

__all__ = [
    "digests",
    "file_digest",
    "hf_config",
    "local_weights",
    "open_clip_checkpoint",
    "open_clip_config",
    "revision",
    "snapshot",
]

#: By library: the file that says how a model of it is made.
_CONFIG, _OPEN_CLIP_CONFIG = "config.json", "open_clip_config.json"


def hf_config(spec: ModelSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration of a model of transformers, and what tells its weights from all others.

    Raises:
        ModelError: It has none, or its files are missing.
    """
    match spec.source:
        case Directory(path=path):
            refuse_unfit(path, _CONFIG)
            config = read_object(path / _CONFIG)
            refuse_without_extra(config, str(spec))
            refuse_damaged(weight_files(path), str(spec))
            return config, {"files": digests(path)}
        case Hub(name=name):
            try:
                file = hub_file(name, _CONFIG)
            except ModelError:
                refuse_adapter(name)
                raise
            config = read_object(file)
            refuse_without_extra(config, str(spec))
            return config, {"hub": name, "revision": file.parent.name}
        case Builtin():
            raise ModelError(f"{spec} is no model of transformers", str(spec))


def open_clip_config(source: Builtin | Directory | Hub) -> dict[str, Any]:
    """Read open_clip's configuration of a model.

    Raises:
        ModelError: There is none.
    """
    match source:
        case Directory(path=path):
            refuse_unfit(path, _OPEN_CLIP_CONFIG)
            return read_object(path / _OPEN_CLIP_CONFIG)
        case Hub(name=name):
            return read_object(hub_file(name, _OPEN_CLIP_CONFIG))
        case Builtin(architecture=architecture):
            require_worker_packages(str(source), "know what architecture that is")
            # The package's own file, found without importing it: that would import torch.
            package = util.find_spec("open_clip")
            assert package is not None
            assert package.submodule_search_locations
            folder = Path(package.submodule_search_locations[0]) / "model_configs"
            file = folder / f"{architecture}.json"
            if not file.is_file():
                raise ModelError(
                    f"open_clip knows no architecture {architecture!r}; "
                    "its `list_models()` prints those it does",
                    architecture,
                )
            return read_object(file)


def open_clip_checkpoint(source: Builtin | Directory | Hub) -> Path:
    """The safetensors file with the weights, downloaded if need be.

    Raises:
        ModelError: There is none; other formats can carry code and are not read.
    """
    match source:
        case Directory(path=path):
            files = sorted(path.glob("*.safetensors"))
            named = [file for file in files if file.name.startswith("open_clip")]
            candidates = named or files
            if len(candidates) != 1:
                names = [file.name for file in candidates]
                raise ModelError(
                    f"{path} must hold one .safetensors checkpoint, found {names}", str(path)
                )
            return candidates[0]
        case Hub(name=name):
            return hub_file(name, "open_clip_model.safetensors")
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
    return hub_file(hub.name, _CONFIG).parent.name


def snapshot(spec: ModelSpec) -> Snapshot:
    """The files of a model as they are now on this machine.

    Raises:
        ModelError: They cannot be looked at.
    """
    try:
        match spec.source:
            case Directory(path=path):
                return Snapshot.of_folder(path)
            case Hub(name=name):
                return Snapshot.of_files(_present(name))
            case Builtin() as source:
                return Snapshot.of_files([open_clip_checkpoint(source)])
    except OSError as error:
        raise ModelError(f"the files of {spec} cannot be looked at: {error}", str(spec)) from error


def local_weights(spec: ModelSpec) -> list[Path]:
    """The weights of a model that lie on this machine; none where a worker would download them.

    Raises:
        ModelError: They are damaged, or an index names others.
    """
    if spec.library == "open_clip":
        return [open_clip_checkpoint(spec.source)]
    if isinstance(spec.source, Directory):
        return weight_files(spec.source.path)
    folder = cached_folder(str(spec.source))
    try:
        return weight_files(folder) if folder else []
    except ModelError:
        return []  # not all of them are here yet


def digests(directory: Path) -> dict[str, str]:
    """SHA-256 of each file that could change what a model computes, by name.

    Raises:
        ModelError: There are no safetensors weights among them.
    """
    files = checkpoint_files(directory)
    if not any(file.suffix == ".safetensors" for file in files):
        raise ModelError(f"{directory} holds no .safetensors weights", str(directory))
    return {file.relative_to(directory).as_posix(): file_digest(file) for file in files}


def file_digest(file: Path) -> str:
    """SHA-256 of a file, hex; remembered until the file changes."""
    return _digest_of_version(identity(file))


def _tagged(architecture: str, tag: str) -> Path:
    require_worker_packages(f"{architecture}/{tag}", "know where its weights are")
    from open_clip import pretrained  # noqa: PLC0415 - imports torch, which takes seconds

    config = pretrained.get_pretrained_cfg(architecture, tag)
    if not config:
        tags = ", ".join(pretrained.list_pretrained_tags_by_model(architecture)) or "none"
        raise ModelError(
            f"{architecture} has no weights tagged {tag!r} and there is no such file; "
            f"known tags: {tags}",
            f"{architecture}/{tag}",
        )
    if not config.get("hf_hub") and not config.get("file"):
        # It would be fetched in full, and then refused.
        return Path(str(config.get("url", tag)))
    try:
        with hub_if_reached() as unreached:
            return Path(pretrained.download_pretrained(config))
    except (OSError, RuntimeError) as error:
        reason = unreached or str(error).partition(". ")[0]
        raise ModelError(
            f"the weights {architecture}/{tag} are not in the cache of this machine, and {reason}: "
            f"connect it, or give the path of a .safetensors file, as "
            f"open_clip:{architecture}/PATH",
            f"{architecture}/{tag}",
        ) from error


def _present(name: str) -> list[Path]:
    """List the files of a model that lie in the hub's cache."""
    folder = cached_folder(name)
    return [file for file in folder.iterdir() if file.is_file()] if folder else []


@lru_cache(maxsize=256)
def _digest_of_version(version: FileIdentity) -> str:
    with Path(version.path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
