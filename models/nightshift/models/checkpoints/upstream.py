"""Call `from_pretrained` of transformers: safetensors only, and no weight missing."""

from collections.abc import Collection, Mapping
from typing import Any

from nightshift.models.checkpoints.files import revision
from nightshift.models.checkpoints.spec import Builtin, Directory, Hub
from nightshift.schema.errors import ModelError
from nightshift.schema.settings import Settings

__all__ = ["loaded_whole", "pinned"]

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


def pinned(source: Builtin | Directory | Hub) -> dict[str, Any]:
    """Arguments that say which files, of which revision, and whether code beside them may run.

    It may where `NIGHTSHIFT_TRUSTED_MODELS` names this repository of the hub, or directory.
    """
    return {
        "pretrained_model_name_or_path": str(source),
        "revision": revision(source) if isinstance(source, Hub) else "main",
        # Left open, transformers asks on a terminal.
        "trust_remote_code": str(source) in Settings().trusted_models,
    }


def loaded_whole(model_class: Any, spec: str, **options: Any) -> Any:  # noqa: ANN401 - as transformers
    """A model of transformers, from safetensors only, every weight of it from its files.

    Left to itself transformers fills gaps with random numbers, and warns.

    Args:
        model_class: Has `from_pretrained`.
        spec: Of the model, for messages.
        **options: Further arguments of `from_pretrained`; see `pinned`.

    Raises:
        ModelError: Some of its weights are missing, or have other shapes or scales.
    """
    model, loading_info = model_class.from_pretrained(
        **options, use_safetensors=True, ignore_mismatched_sizes=True, output_loading_info=True
    )
    _refuse_gaps(spec, loading_info)
    return model


def _refuse_gaps(spec: str, loading_info: Mapping[str, Collection[Any]]) -> None:
    gaps = [(name, "missing") for name in loading_info["missing_keys"]]
    gaps += [(name, "of another shape") for name, *_ in loading_info["mismatched_keys"]]
    # Weights whose scales nobody took are numbers of another size.
    scales = (name for name in loading_info["unexpected_keys"] if name.endswith(_SCALES))
    gaps += [(name, "of no use to transformers") for name in scales]
    if not gaps:
        return
    named = ", ".join(f"{name} is {fault}" for name, fault in sorted(gaps)[:_NAMED])
    raise ModelError(
        f"{spec} cannot be loaded: {len(gaps)} of its weights are not in its files as its "
        f"configuration says ({named}{', …' if len(gaps) > _NAMED else ''}): fetch it again, or "
        "choose a checkpoint that was saved as this class of model",
        spec,
    )
