"""What must be installed beside us for some checkpoints."""

from importlib.util import find_spec

from nightshift.schema.distribution import Extra

__all__ = ["EXTRA_OF", "missing_extra"]

#: Package that reads a quantised checkpoint → the extra of ours that brings it.
EXTRA_OF: dict[str, Extra] = {
    "gptqmodel": "awq",
    "bitsandbytes": "quantised",
    "accelerate": "quantised",
}
# By `quant_method` of a checkpoint.
_PACKAGE = {"bitsandbytes": "bitsandbytes", "awq": "gptqmodel", "gptq": "gptqmodel"}


def missing_extra(quant_method: str) -> tuple[Extra, str] | None:
    """The extra that a kind of quantisation needs here, and its package; None where it is there."""
    package = _PACKAGE.get(quant_method)
    return None if package is None or find_spec(package) else (EXTRA_OF[package], package)
