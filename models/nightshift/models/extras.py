"""What must be installed beside us for some checkpoints."""

from importlib.util import find_spec

from nightshift.schema.distribution import Extra

__all__ = ["missing_extra"]

# By `quant_method` of a checkpoint: our extra, and the package that it brings.
_QUANTISED: dict[str, tuple[Extra, str]] = {
    "bitsandbytes": ("quantised", "bitsandbytes"),
    "awq": ("awq", "gptqmodel"),
    "gptq": ("awq", "gptqmodel"),
}


def missing_extra(quant_method: str) -> tuple[Extra, str] | None:
    """The extra that a kind of quantisation needs here, and its package; None where it is there."""
    extra, package = _QUANTISED.get(quant_method, (None, ""))
    return None if extra is None or find_spec(package) is not None else (extra, package)
