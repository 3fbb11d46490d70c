"""RetLLM (Su & Wang, ICASSP 2026, arXiv 2602.22278): fine scoring of retrieved pairs.

For each pair one prefill asks whether the candidate matches, "True or False"; the margin is the
log-odds of the two answers at the last position. While the prompt is read, a layer that leaves the
answer uncertain makes the next one look at the image again (visual enhancement). The entropy of
the whole vocabulary at the same position breaks ties (`tie_break`).

Paper and released code differ from this and from each other: presets `paper` and `code`, methods
§1.2. The paper has the model write the score, and asks "True or False" of tied candidates only.
"""

from dataclasses import replace
from types import MappingProxyType

from nightshift.schema.params import EnhancementParams
from nightshift.scoring.methods.method import Method
from nightshift.scoring.methods.retllm_prompts import (
    LISTWISE_FRAMING,
    NUMBER_FRAMING,
    TRUE_FALSE_FRAMING,
)

__all__ = ["ENHANCEMENTS", "RETLLM"]

#: The enhancement as the released code has it, as the paper has it, and as we do by default.
ENHANCEMENTS = MappingProxyType(
    {
        "default": EnhancementParams(),
        # Layers 6 to 15, however deep the model is.
        "code": EnhancementParams(
            alpha=0.12, window=(5, 16), memory="all", lens_norm="none", norm_match="sequence"
        ),
        "paper": EnhancementParams(alpha=0.3, memory="image", norm_match="sequence"),
        "off": EnhancementParams(trigger="never"),
    }
)

_DEFAULT = Method(
    name="retllm",
    framings=(TRUE_FALSE_FRAMING, NUMBER_FRAMING, LISTWISE_FRAMING),
    score="margin_2way",
    depth=5,
    quantum=0.01,
    enhancement=ENHANCEMENTS["default"],
)

RETLLM = replace(
    _DEFAULT,
    presets=MappingProxyType(
        {
            "default": _DEFAULT,
            "paper": replace(_DEFAULT, score="number", enhancement=ENHANCEMENTS["paper"]),
            "code": replace(
                _DEFAULT,
                score="p_true_full",
                tie_guard=False,
                # 256 to 512 visual tokens of Qwen2.5-VL.
                min_pixels=256 * 28 * 28,
                max_pixels=512 * 28 * 28,
                enhancement=ENHANCEMENTS["code"],
            ),
        }
    ),
)
