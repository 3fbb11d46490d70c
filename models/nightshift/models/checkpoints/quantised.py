"""Checkpoints whose weights are stored in fewer bits: their configurations put right."""

from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from nightshift.schema.errors import ModelError

__all__ = ["ready_quantised", "refuse_misread"]


def ready_quantised(config: PreTrainedConfig) -> bool:
    """Put right what a configuration says of quantisation.

    Args:
        config: As read from a checkpoint; changed here.

    Returns:
        Whether it says any.
    """
    for part in (config, config.get_text_config()):
        stored: dict[str, Any] | None = getattr(part, "quantization_config", None)
        if stored:
            _leave_out_at_any_depth(stored)
            if stored.get("quant_method") == "fp8":
                # Kernels that keep it small are code, fetched from the hub as they run.
                stored["dequantize"] = True
            return True
    return False


def refuse_misread(spec: str, model: PreTrainedModel, planned: torch.dtype) -> None:
    """Refuse a model that would compute otherwise than its files and the plan say.

    Args:
        spec: Its specification.
        model: As transformers loaded it.
        planned: The precision to compute in.

    Raises:
        ModelError: Some layers are plain that were taken for quantised, or its kernels do not heed
            the precision, as AWQ's do not on a GPU.
    """
    plain = [
        name
        for name, part in model.named_modules()
        # bitsandbytes takes a plain weight for four bits, and stumbles over it when it runs.
        if type(part).__name__ == "Linear4bit" and getattr(part.weight, "quant_state", None) is None
    ]
    if plain:
        raise ModelError(
            f"{spec}: {len(plain)} layers are not quantised in its files, which its "
            f"quantization_config does not say ({plain[0]} is one): name them in "
            "llm_int8_skip_modules of its config.json",
            spec,
        )
    if (computed := model.config.dtype) != planned:
        names = [str(dtype).removeprefix("torch.") for dtype in (computed, planned)]
        raise ModelError(
            f"{spec} would compute in {names[0]} here, not in {names[1]} as planned: append "
            f"@{names[0]} to its specification",
            spec,
        )


def _leave_out_at_any_depth(stored: dict[str, Any]) -> None:
    """Let names of what is not quantised mean what they meant when they were written.

    Before version 5 transformers looked for them anywhere in a module's name, and modules stood
    less deep: Qwen2.5-VL in AWQ leaves out `visual`, which is `model.visual` now. Left as it is, it
    would be taken for quantised, and found missing.
    """
    for key in ("modules_to_not_convert", "llm_int8_skip_modules"):
        if names := stored.get(key):
            stored[key] = [*names, *(rf"(?:.*\.)?{name}" for name in names)]
