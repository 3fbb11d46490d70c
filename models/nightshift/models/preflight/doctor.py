"""Check the GPUs of this machine and the models in use, as `nightshift doctor` reports them."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from nightshift.models.checkpoints.describe import (
    describe_embedder,
    describe_scorer,
    describe_vision,
)
from nightshift.models.checkpoints.extras import missing_worker_package
from nightshift.models.checkpoints.files import local_weights
from nightshift.models.checkpoints.hub import offline
from nightshift.models.checkpoints.spec import Hub, parse_spec
from nightshift.models.preflight.loadable import examine
from nightshift.schema.distribution import install_hint
from nightshift.schema.errors import ModelError, NightshiftError
from nightshift.schema.findings import Finding, Level
from nightshift.schema.models import ModelFacts, ModelInUse
from nightshift.schema.params import ScorerParams, TokenParams

__all__ = ["examine_devices", "examine_models"]

_DRIVER = Path("/proc/driver/nvidia/version")


def examine_devices() -> Iterator[Finding]:
    """List the GPUs that workers on this machine would use, with their memory."""
    if (package := missing_worker_package()) is not None:
        message = (
            f"not looked at: {package} is not installed here, so this installation runs no "
            f"worker; {install_hint('worker')} to run one"
        )
        yield Finding(check="gpu", level="ok", message=message)
        return
    import torch  # takes seconds, and the base installation lacks it

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


def examine_models(models: Iterable[ModelInUse]) -> Iterator[Finding]:
    """Examine each model's files as a worker would, but load no weights and download nothing.

    A model that no run waits for is at most a warning.
    """
    for model in models:
        name = f"{model.spec} ({', '.join(model.used_by)})"
        level: Level = "error" if model.waited_for else "warning"
        try:
            with offline():
                result = _examine(model)
        except NightshiftError as error:
            result = f"cannot be loaded on this machine: {error}"
        except Exception as error:  # noqa: BLE001 - a worker's load would raise the same
            result = f"cannot be loaded on this machine: {type(error).__name__}: {error}"
        else:
            level = "ok"
        yield Finding(check="model", level=level, message=f"{name} {result}")


def _examine(model: ModelInUse) -> str:
    """Describe a model, compare fingerprints, and examine it; ModelError if it would not load."""
    facts = _describe(model)
    if isinstance(parse_spec(facts.spec).source, Hub) and not local_weights(parse_spec(facts.spec)):
        raise ModelError(
            "its weights are not in the hub's cache of this machine; a worker here downloads them "
            "when it needs them",
            facts.spec,
        )
    if facts.fingerprint != model.fingerprint:
        raise ModelError(
            f"its fingerprint is {facts.fingerprint} here, but {model.fingerprint} where it was "
            "planned: its weights or configuration have changed; put the former ones back, or "
            "plan again",
            facts.spec,
        )
    return examine(facts, model.scorer)


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
