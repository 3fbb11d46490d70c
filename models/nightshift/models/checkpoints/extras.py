"""Packages that some checkpoints or tasks need, and the extra of ours that installs each."""

from importlib.util import find_spec

from nightshift.schema.distribution import EXTRA_OF_PACKAGE, Extra, install_hint
from nightshift.schema.errors import ModelError

__all__ = ["missing_extra", "missing_worker_package", "require_worker_packages"]

# By `quant_method` of a checkpoint.
_PACKAGE = {"bitsandbytes": "bitsandbytes", "awq": "gptqmodel", "gptq": "gptqmodel"}
#: Modules that load and run models; the extra `worker` installs them.
_WORKER_PACKAGES = ("torch", "transformers", "open_clip")


def missing_extra(quant_method: str) -> tuple[Extra, str] | None:
    """The extra that a kind of quantisation needs here, and its package; None where it is there."""
    package = _PACKAGE.get(quant_method)
    return None if package is None or find_spec(package) else (EXTRA_OF_PACKAGE[package], package)


def missing_worker_package() -> str | None:
    """The first package that a worker needs and this installation lacks; None if it has all."""
    return next((name for name in _WORKER_PACKAGES if find_spec(name) is None), None)


def require_worker_packages(spec: str, purpose: str) -> None:
    """Refuse what needs the packages of a worker where one of them is not installed.

    Args:
        spec: Of the model.
        purpose: What is to be done with the model, as the end of "it is needed to".

    Raises:
        ModelError: Names the package and the extra that installs it.
    """
    package = missing_worker_package()
    if package is not None:
        raise ModelError(
            f"{spec}: {package} is not installed here and is needed to {purpose}: "
            f"{install_hint('worker')}",
            spec,
        )
