"""Qwen2.5-VL by transformers."""

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from nightshift.models.checkpoints.loading import load_pretrained
from nightshift.models.families.qwen2_vl import QwenVL, patch_conv_as_linear
from nightshift.schema.models import ModelFacts

__all__ = ["Qwen25VL", "load", "patch_conv_as_linear"]


class Qwen25VL(QwenVL):
    """A `Family`."""


def load(facts: ModelFacts, device: torch.device) -> Qwen25VL:
    """Load the model; see `load_pretrained`."""
    model, processor, name = load_pretrained(Qwen2_5_VLForConditionalGeneration, facts, device)
    return Qwen25VL(patch_conv_as_linear(model), processor, name)
