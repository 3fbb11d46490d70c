"""How a model that cannot be loaded is told."""

from collections.abc import Collection, Mapping
from typing import Any

from safetensors import SafetensorError

from nightshift.schema.errors import ModelError

__all__ = ["LOAD_ERRORS", "not_loaded", "refuse_gaps"]

#: What transformers raises where files are missing, damaged or not its own.
LOAD_ERRORS = (OSError, ValueError, KeyError, ImportError, SafetensorError)

_NAMED = 3
# What names of scales and codes of quantised weights end with; activations have scales too, which
# may be left.
_SCALES = (
    "_scale_inv",
    ".weight_scale",
    ".absmax",
    ".quant_map",
    ".qweight",
    ".qzeros",
    ".scales",
)
_OURS = "transformers"
_OR_TRUST = ", or name it in NIGHTSHIFT_TRUSTED_MODELS if you trust its authors"


def not_loaded(spec: str, error: Exception, library: str = _OURS) -> ModelError:
    """The error to raise in place of a library's own, such as one of `LOAD_ERRORS`.

    Args:
        spec: Of the model.
        error: As the library raised it.
        library: Its name.
    """
    # The library's own advice is to let the code run.
    if "trust_remote_code" in str(error):
        return ModelError(
            f"{spec} needs code that lies beside its weights, and no such code is run: choose a "
            f"checkpoint that {library} reads by itself{_OR_TRUST if library == _OURS else ''}",
            spec,
        )
    # And here, to read a pickle, which may run code as well.
    if "use_safetensors" in str(error):
        return ModelError(
            f"{spec} has no weights in safetensors, and no others are read, for they may run code: "
            "choose a checkpoint that has them, or convert it and give its folder",
            spec,
        )
    return ModelError(f"{spec} cannot be loaded: {error}", spec)


def refuse_gaps(spec: str, told: Mapping[str, Collection[Any]]) -> None:
    """Refuse a model of which some weights are not from its files: they would be random numbers.

    Args:
        spec: Of the model.
        told: What `from_pretrained` returns with `output_loading_info`.

    Raises:
        ModelError: There are some.
    """
    gaps = [(name, "missing") for name in told["missing_keys"]]
    gaps += [(name, "of another shape") for name, *_ in told["mismatched_keys"]]
    # Weights whose scales nobody took are numbers of another size.
    scales = (name for name in told["unexpected_keys"] if name.endswith(_SCALES))
    gaps += [(name, "of no use to transformers") for name in scales]
    if not gaps:
        return
    named = ", ".join(f"{name} is {why}" for name, why in sorted(gaps)[:_NAMED])
    raise ModelError(
        f"{spec} cannot be loaded: {len(gaps)} of its weights are not in its files as its "
        f"configuration says ({named}{', …' if len(gaps) > _NAMED else ''}): fetch it again, or "
        "choose a checkpoint that was saved as this class of model",
        spec,
    )
