"""Model families: one module for each, named by the `model_type` that it reads."""

from importlib import import_module

import torch

from nightshift.models.engine.family import Family
from nightshift.schema.models import ModelFacts

__all__ = ["load"]


def load(facts: ModelFacts, device: torch.device) -> Family:
    """Load a model of a family; each family is a module of this package, named by `model_type`.

    Args:
        facts: Of a scorer, a vision tower, or an embedder that is a multimodal LLM.
        device: Where it goes; on `meta` it gets no weights.

    Raises:
        ModelError: It cannot be loaded.
    """
    module = import_module(f"nightshift.models.families.{facts.card['family']}")
    family: Family = module.load(facts, device)
    return family
