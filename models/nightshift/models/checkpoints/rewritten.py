"""Which scores differ from those of earlier releases: the fingerprints of their models say so.

Three things changed: images side by side in LLaVA-OneVision's prompts, texts that Gemma's template
strips, and texts that were cut from the head in front of them. And a BOS that a tokenizer adds is
kept. Models and questions that these leave as they were keep their fingerprints, and their scores.
So do enhancements, but for those whose window names layers that a model does not have.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from nightshift.schema.params import EnhancementParams
from nightshift.scoring.prompts import Framing, Slot, Template

__all__ = ["rewritten", "rewritten_embedding"]

_IMAGES = {Slot.QUERY_IMAGES, Slot.CANDIDATE_IMAGES}
#: Families whose template ends its head with a space in front of a text.
_SPACED_HEAD = {"idefics3", "smolvlm"}
_CHANGED = {"rendering": 2}


def rewritten(
    config: Mapping[str, Any], rules: Iterable[Framing], enhancement: EnhancementParams
) -> dict[str, int]:
    """The entry of a scorer's card that marks prompts which earlier releases wrote differently.

    Args:
        config: Of the checkpoint.
        rules: All framings of the scorer.
        enhancement: When it acts.
    """
    family = config["model_type"]
    templates = [template for rule in rules for template in rule.templates.values()]
    changed = (
        _always(config)
        or _is_outside(config, enhancement)
        or (family == "gemma3" and any(map(_may_be_stripped, templates)))
        or (family in _SPACED_HEAD and any(map(_was_cut_from_the_head, templates)))
    )
    return _CHANGED if changed else {}


def rewritten_embedding(config: Mapping[str, Any]) -> dict[str, int]:
    """The same of an embedder: its requests begin with a line break, and texts come first."""
    changed = _always(config) or config["model_type"] in {"gemma3", *_SPACED_HEAD}
    return _CHANGED if changed else {}


def _always(config: Mapping[str, Any]) -> bool:
    if config["model_type"] == "internvl":
        # Other decoders than Qwen's bring a tokenizer that adds a BOS.
        decoder = (config.get("text_config") or {}).get("model_type", "qwen2")
        return not str(decoder).startswith("qwen")
    return bool(config["model_type"] == "llava_onevision")


def _is_outside(config: Mapping[str, Any], enhancement: EnhancementParams) -> bool:
    """True if the window names layers of which the model has none with a layer behind it."""
    low, high = enhancement.window
    depth = (config.get("text_config") or config).get("num_hidden_layers")
    if enhancement.trigger != "entropy" or high <= 1 or depth is None:
        return False
    return not any(low < layer < high for layer in range(int(depth) - 1))


def _may_be_stripped(template: Template) -> bool:
    """True if some text of a prompt can begin or end with a space or line break."""
    return any(
        _is_open(first.lstrip() if isinstance(first, str) else first, first)
        or _is_open(last.rstrip() if isinstance(last, str) else last, last)
        for first, *_, last in map(_ends, _texts(template))
    )


def _ends(parts: list[str | Slot]) -> tuple[str | Slot, str | Slot]:
    return parts[0], parts[-1]


def _is_open(stripped: str | Slot, part: str | Slot) -> bool:
    # What an item's text begins or ends with, nobody knows.
    return isinstance(part, Slot) or stripped != part


def _texts(template: Template) -> Iterator[list[str | Slot]]:
    parts = (*template.prefix, *template.suffix)
    for is_image, run in groupby(parts, key=lambda part: part in _IMAGES):
        if not is_image:
            yield list(run)


def _was_cut_from_the_head(template: Template) -> bool:
    return not template.prefix and template.suffix[0] not in _IMAGES
