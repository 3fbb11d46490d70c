"""Could a worker on this machine load the models that are waited for, and where would they run?"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub import constants, hf_hub_download
from safetensors import SafetensorError, safe_open

from nightshift.models.describe import (
    describe_embedder,
    describe_scorer,
    describe_vision,
)
from nightshift.models.files import open_clip_checkpoint
from nightshift.models.load import bind_scorer, load_family
from nightshift.models.spec import Hub, ModelSpec, parse_spec
from nightshift.schema.errors import ModelError, NightshiftError
from nightshift.schema.findings import Finding, Level
from nightshift.schema.models import ModelFacts, ModelInUse
from nightshift.schema.runs import ScorerParams, TokenParams

__all__ = ["examine_devices", "examine_models"]

_DRIVER = Path("/proc/driver/nvidia/version")


def examine_devices() -> Iterator[Finding]:
    """The GPUs that workers on this machine would use, with their memory."""
    if not torch.cuda.is_available():
        if _DRIVER.exists():
            yield Finding(
                check="gpu",
                level="warning",
                message=f"there is an NVIDIA driver, but PyTorch {torch.__version__} cannot use "
                "it, so workers use the CPU: install a build for its CUDA version",
            )
        else:
            yield Finding(
                check="gpu",
                level="ok",
                message=f"none: workers use the CPU (PyTorch {torch.__version__})",
            )
    for number in range(torch.cuda.device_count()):
        name = f"cuda:{number} {torch.cuda.get_device_name(number)}"
        try:
            free, total = torch.cuda.mem_get_info(number)
        except RuntimeError as error:
            # Asking takes memory itself, and a device that one process has to itself.
            message = f"{name} cannot be asked for its memory (is it full, or taken?): {error}"
            yield Finding(check="gpu", level="warning", message=message)
        else:
            message = f"{name}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"
            yield Finding(check="gpu", level="ok", message=message)


def examine_models(wanted: Iterable[ModelInUse]) -> Iterator[Finding]:
    """Look at each model's files as a worker would, but load no weights and download nothing.

    A model that no run waits for is at most a warning.
    """
    for model in wanted:
        name = f"{model.spec} ({', '.join(model.used_by)})"
        level: Level = "error" if model.waited_for else "warning"
        try:
            with _offline():
                said = _examine(model)
        except NightshiftError as error:
            said = f"cannot be loaded on this machine: {error}"
        except Exception as error:  # noqa: BLE001 - a worker would stumble over it just so
            said = f"cannot be loaded on this machine: {type(error).__name__}: {error}"
        else:
            level = "ok"
        yield Finding(check="model", level=level, message=f"{name} {said}")


def _examine(model: ModelInUse) -> str:
    """What can be said of a model that would load; ModelError where it would not."""
    facts = _describe(model)
    _check_weights(parse_spec(facts.spec))
    if facts.fingerprint != model.fingerprint:
        raise ModelError(
            f"its fingerprint is {facts.fingerprint} here, but {model.fingerprint} where it was "
            "planned: its weights or configuration have changed; put the former ones back, or "
            "plan anew",
            facts.spec,
        )
    if "family" not in facts.card:
        return f"can be loaded: {facts.dim} numbers a vector"
    # On this device tensors have shapes, but no numbers.
    family = load_family(facts, device="meta")
    if model.kind == "scorer":
        # Fails where a label is not one token.
        bind_scorer(family, model.scorer or ScorerParams(), facts)
    return f"can be loaded: {family.report.text()}"


def _describe(model: ModelInUse) -> ModelFacts:
    if model.kind == "embedder":
        return describe_embedder(model.spec)
    if model.kind == "scorer":
        return describe_scorer(model.spec, model.scorer or ScorerParams())
    limits = model.limits or TokenParams()
    return describe_vision(
        model.spec,
        min_pixels=limits.min_pixels,
        max_pixels=limits.max_pixels,
        long_side=limits.long_side,
    )


def _check_weights(spec: ModelSpec) -> None:
    """ModelError where a file of weights is missing or cut short; only their headers are read."""
    for file in _weight_files(spec):
        try:
            with safe_open(file, framework="np"):
                pass
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{file} is missing or damaged: {error}", str(spec)) from error


def _weight_files(spec: ModelSpec) -> list[Path]:
    if spec.library == "open_clip":
        return [open_clip_checkpoint(spec.source)]
    folder = Path(str(spec.source))
    if isinstance(spec.source, Hub):
        # It was read a moment ago, to describe the model.
        folder = Path(hf_hub_download(spec.source.name, "config.json")).parent
    shards = {
        folder / name
        for index in folder.glob("*.safetensors.index.json")
        for name in json.loads(index.read_text("utf-8"))["weight_map"].values()
    }
    found = sorted(shards | set(folder.glob("*.safetensors")))
    if not found:
        raise ModelError(
            f"its weights are not in the hub's cache of this machine ({folder}); a worker here "
            "downloads them when it needs them",
            str(spec),
        )
    return found


@contextmanager
def _offline() -> Iterator[None]:
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
