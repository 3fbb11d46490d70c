"""Load models of transformers: safetensors only, quantised or not."""

from typing import Any

import torch
from transformers import AutoConfig, AutoProcessor, PreTrainedConfig, PreTrainedModel
from transformers.utils.import_utils import is_flash_attn_2_available
from transformers.utils.logging import disable_progress_bar

from nightshift.models.checkpoints.files import local_weights
from nightshift.models.checkpoints.load_errors import LOAD_ERRORS, not_loaded
from nightshift.models.checkpoints.quantised import ready_quantised, refuse_misread
from nightshift.models.checkpoints.spec import parse_spec
from nightshift.models.checkpoints.upstream import loaded_whole, pinned
from nightshift.schema.models import ModelFacts

__all__ = ["attention_for", "load_pretrained"]


def load_pretrained(
    model_class: type[PreTrainedModel],
    facts: ModelFacts,
    device: torch.device,
    processor_class: Any = AutoProcessor,  # noqa: ANN401 - transformers types it loosely
    *,
    causal: bool = True,
) -> tuple[Any, Any, str]:
    """Load a model and its processor.

    Args:
        model_class: Its family's class.
        facts: Of its specification.
        device: Where it goes; on `meta` it gets no weights, and can only prepare images.
        processor_class: Another one than its files name.
        causal: Whether no token of its prompts looks ahead.

    Returns:
        The model in evaluation mode on its device, its processor, and its name for messages.

    Raises:
        ModelError: It cannot be loaded, or computes in another precision than was planned.
    """
    where = pinned(parse_spec(facts.spec).source)
    dtype = getattr(torch, facts.card["precision"])
    disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(**where)
        quantised = ready_quantised(config)
        if device.type == "meta":
            model: Any = _without_weights(model_class, config, facts, where, quantised=quantised)
        else:
            model = loaded_whole(
                model_class,
                facts.spec,
                **where,
                config=config,
                dtype=dtype,
                attn_implementation=attention_for(model_class, device, dtype, causal=causal),
                # What is quantised is put together where it will stay; it moves no more.
                device_map={"": device} if quantised else None,
            )
            refuse_misread(facts.spec, model, dtype)
            model.eval()
        processor = processor_class.from_pretrained(**where)
    except LOAD_ERRORS as error:
        raise not_loaded(facts.spec, error) from error
    placed = quantised or device.type == "meta"
    return model if placed else model.to(device=device), processor, facts.spec


def _without_weights(
    model_class: type[PreTrainedModel],
    config: PreTrainedConfig,
    facts: ModelFacts,
    where: dict[str, Any],
    *,
    quantised: bool,
) -> Any:  # noqa: ANN401 - as above
    """A model whose tensors have shapes, but no numbers; its files are compared with them.

    What is quantised is put together on the device alone, and what is not here yet stays where it
    is: neither is compared.
    """
    meta = torch.device("meta")
    if quantised or not local_weights(parse_spec(facts.spec)):
        with meta:
            return model_class(config)
    dtype = getattr(torch, facts.card["precision"])
    return loaded_whole(
        model_class, facts.spec, **where, config=config, dtype=dtype, device_map={"": meta}
    )


def attention_for(
    model_class: type[PreTrainedModel], device: torch.device, dtype: torch.dtype, *, causal: bool
) -> str:
    """Which attention whole prompts and the vision tower run on, as transformers names it.

    FlashAttention where it is installed and made for the device, the precision and the mask, else
    PyTorch's own. The packed engine attends by PyTorch's in any case: its masks are its own.

    Args:
        model_class: Its family's class.
        device: Where it runs.
        dtype: Of its weights.
        causal: Whether no token of its prompts looks ahead.
    """
    fits = device.type == "cuda" and dtype in {torch.bfloat16, torch.float16} and causal
    # Its kernels begin with Ampere.
    fits = fits and torch.cuda.get_device_capability(device) >= (8, 0)
    known = getattr(model_class, "_supports_flash_attn", False)
    return "flash_attention_2" if fits and known and is_flash_attn_2_available() else "sdpa"
