"""Directories that hold no model that can be loaded: what they are instead, and what to do."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from nightshift.models.checkpoints.extras import missing_extra
from nightshift.models.checkpoints.hub import hub_file
from nightshift.models.checkpoints.snapshot import READ, weight_files
from nightshift.schema.distribution import install_hint
from nightshift.schema.errors import ModelError

__all__ = [
    "quantisation",
    "read_object",
    "refuse_adapter",
    "refuse_damaged",
    "refuse_unfit",
    "refuse_without_extra",
]

_POINTER = b"version https://git-lfs.github.com/spec/"
_POINTER_BYTES = 1024
_POINTED = "holds {} as a git-lfs pointer, not the file itself: run `git lfs pull` in it"
_ADAPTER = "adapter_config.json"
_MERGE = (
    "an adapter (LoRA), not a model: merge it first into the model that it was trained on "
    "(merge_and_unload of the library peft), save that, and give its directory"
)
_SAVED_BY = {
    "model_index.json": "it holds a pipeline of diffusers, which makes images",
    "modules.json": "it was saved by sentence-transformers",
}
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")


def read_object(file: Path) -> dict[str, Any]:
    """A JSON object of a checkpoint.

    Raises:
        ModelError: It is missing, or none.
    """
    try:
        value = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file} cannot be read: {error}", str(file)) from error
    if not isinstance(value, dict):
        raise ModelError(f"{file} holds no JSON object", str(file))
    return value


def refuse_unfit(folder: Path, config: str) -> None:
    """Refuse a directory without a model of one library.

    Args:
        folder: Where its files should be.
        config: The file that every model of that library has.

    Raises:
        ModelError: Says what the directory is instead.
    """
    try:
        names = {file.name for file in folder.iterdir()}
    except OSError as error:
        raise _unfit(folder, f"cannot be read: {error.strerror}") from error
    if not names:
        raise _unfit(folder, f"is empty, without {config}: fetch the model's files into it")
    if _ADAPTER in names:
        raise _unfit(
            folder,
            f"holds {_MERGE}"
            + (f"; where it is merged already, delete {_ADAPTER}" if config in names else ""),
        )
    for name in sorted(names):
        file = folder / name
        # A pipe would be waited for, a device read without end.
        if file.exists() and not (file.is_file() or file.is_dir()):
            raise _unfit(folder, f"holds {name}, which is neither a file nor a directory")
    _refuse_pointers(folder)
    if config not in names:
        raise _unfit(folder, _without_config(folder, names, config))
    for name in sorted(names):
        file = folder / name
        if file.suffix in READ and not os.access(file, os.R_OK):
            raise _unfit(folder, f"holds {name}, which this user may not read")
    if not weight_files(folder):
        raise _unfit(folder, f"holds no .safetensors weights{_instead(folder, names)}")


def refuse_adapter(name: str) -> None:
    """Refuse a repository of the hub that has no model, where it has an adapter.

    Raises:
        ModelError: It has one.
    """
    try:
        hub_file(name, _ADAPTER)
    except ModelError:
        return
    raise ModelError(f"{name} holds {_MERGE}", name)


def refuse_damaged(files: list[Path], spec: str) -> None:
    """Refuse weights that are missing or cut short; only their headers are read.

    Raises:
        ModelError: Names the file.
    """
    for file in files:
        try:
            with safe_open(file, framework="np"):
                pass
        except (OSError, SafetensorError) as error:
            if _is_pointer(file):
                raise _unfit(file.parent, _POINTED.format(file.name)) from error
            raise ModelError(
                f"{file} is missing or damaged ({error}): fetch it again", spec
            ) from error


def quantisation(config: Mapping[str, Any]) -> str | None:
    """The quantisation method that a configuration names; None where weights are not quantised."""
    for part in (config, config.get("text_config") or {}):
        stored = part.get("quantization_config") if isinstance(part, Mapping) else None
        if stored:
            return str(stored.get("quant_method", "")) if isinstance(stored, Mapping) else ""
    return None


def refuse_without_extra(config: Mapping[str, Any], spec: str) -> None:
    """Refuse a quantised model whose package is not installed here.

    Raises:
        ModelError: Names the extra.
    """
    method = quantisation(config)
    missing = None if method is None else missing_extra(method)
    if missing is not None:
        extra, package = missing
        raise ModelError(
            f"{spec} is quantised ({method}), which needs {package} of the extra {extra!r}, and "
            f"that is not installed: {install_hint(extra)}, and on every worker",
            spec,
        )


def _refuse_pointers(folder: Path) -> None:
    for file in sorted(folder.iterdir()):
        if file.suffix in READ and _is_pointer(file):
            raise _unfit(folder, _POINTED.format(file.name))


def _is_pointer(file: Path) -> bool:
    try:
        small = file.is_file() and file.stat().st_size <= _POINTER_BYTES
        return small and file.read_bytes().startswith(_POINTER)
    except OSError:
        return False  # refused by what reads it, if anything does


def _without_config(folder: Path, names: set[str], config: str) -> str:
    """Explain what a directory without a library's configuration is, and what to give instead."""
    inside = _first_inside(folder, names, config)
    saved_by = next((said for name, said in _SAVED_BY.items() if name in names), None)
    if config == "config.json" and "open_clip_config.json" in names:
        said = f"it holds a model of open_clip, so write open_clip:{folder}"
    elif config == "open_clip_config.json" and "config.json" in names:
        said = f"it holds a model of transformers, so write hf:{folder}"
    elif "snapshots" in names:
        cached = folder / "snapshots"
        revision = _first_inside(cached, _listed(cached), config) or "REVISION"
        said = (
            "it is a repository in the hub's cache; give its name on the hub, or the directory "
            f"{cached / revision}"
        )
    elif saved_by is not None:
        said = saved_by + (f"; {inside} in it has one" if inside else "")
    elif any(Path(name).suffix == ".gguf" for name in names):
        said = "its weights are GGUF, which is not read: take the checkpoint it was converted from"
    elif inside:
        said = f"{inside} in it has one: give that directory"
    else:
        said = "give the directory that a model was saved or downloaded into"
    return f"has no {config}: {said}"


def _instead(folder: Path, names: set[str]) -> str:
    """Name the weights of other formats that a directory holds instead."""
    suffixes = {Path(name).suffix for name in names}
    if ".gguf" in suffixes:
        return ", only GGUF, which is not read: take the checkpoint that it was converted from"
    pickled = sorted(name for name in names if Path(name).suffix in _PICKLES)
    if pickled:
        return (
            f", only {pickled[0]}, and no other format is read, for it may run code: convert it, "
            "or choose a checkpoint that has safetensors"
        )
    inside = _first_inside(folder, names, "model.safetensors")
    return f"; {inside} in it has some" if inside else ": fetch them"


def _first_inside(folder: Path, names: set[str], file: str) -> str | None:
    return next((name for name in sorted(names) if (folder / name / file).is_file()), None)


def _listed(folder: Path) -> set[str]:
    try:
        return {file.name for file in folder.iterdir()}
    except OSError:
        return set()


def _unfit(folder: Path, reason: str) -> ModelError:
    return ModelError(f"{folder} {reason}", str(folder))
