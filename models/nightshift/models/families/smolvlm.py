"""SmolVLM by transformers: Idefics3 with other weights."""

import torch
from transformers import Idefics3Processor, SmolVLMForConditionalGeneration

from nightshift.models.checkpoints.loading import load_pretrained
from nightshift.models.families.idefics3 import Idefics3
from nightshift.schema.models import ModelFacts

__all__ = ["SmolVLM", "load"]


class SmolVLM(Idefics3):
    """A `Family`."""


def load(facts: ModelFacts, device: torch.device) -> SmolVLM:
    """Load the model; see `load_pretrained`."""
    # Its own processor writes images the same, but wants a package that spells out how long a
    # video is.
    return SmolVLM(
        *load_pretrained(SmolVLMForConditionalGeneration, facts, device, Idefics3Processor)
    )
