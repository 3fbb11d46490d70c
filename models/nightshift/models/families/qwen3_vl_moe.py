"""Qwen3-VL with a mixture of experts, by transformers."""

import torch
from transformers import Qwen3VLMoeForConditionalGeneration

from nightshift.models.checkpoints.loading import load_pretrained
from nightshift.models.families.qwen2_vl import patch_conv_as_linear
from nightshift.models.families.qwen3_vl import Qwen3VL
from nightshift.schema.models import ModelFacts

__all__ = ["load"]


def load(facts: ModelFacts, device: torch.device) -> Qwen3VL:
    """Load the model; see `load_pretrained`."""
    model, processor, name = load_pretrained(Qwen3VLMoeForConditionalGeneration, facts, device)
    return Qwen3VL(patch_conv_as_linear(model), processor, name)
