"""Turn loading errors into `ModelError` messages."""

from safetensors import SafetensorError

from nightshift.schema.distribution import EXTRA_OF_PACKAGE, install_hint
from nightshift.schema.errors import ModelError

__all__ = ["LOAD_ERRORS", "not_loaded"]

#: What transformers raises where files are missing, damaged or not its own.
LOAD_ERRORS = (OSError, ValueError, KeyError, ImportError, SafetensorError)

# Packages that its messages name where a checkpoint needs them.
_NAMED_BY_TRANSFORMERS = ("gptqmodel", "bitsandbytes", "accelerate")
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
    if isinstance(error, ImportError):
        for package in _NAMED_BY_TRANSFORMERS:
            if package in str(error).lower():
                hint = install_hint(EXTRA_OF_PACKAGE[package])
                return ModelError(f"{spec} cannot be loaded: it needs {package}; {hint}", spec)
    return ModelError(f"{spec} cannot be loaded: {' '.join(str(error).split())}", spec)
