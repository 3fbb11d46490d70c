"""For `benchmarks.scoring`: models of fixed shapes, random weights."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from nightshift.demo import scorer_dir
from nightshift.models.engine.family import PixelLimits
from nightshift.models.families.qwen2_5_vl import Qwen25VL, patch_conv_as_linear

__all__ = ["PRESETS", "TOKENS_PER_SIDE", "Model", "build", "demo_scorer"]

#: An image is 16 × 16 visual tokens.
TOKENS_PER_SIDE = 16
_PUBLISHED_PATCH = 14

# Width, layers, heads, key-value heads, feed-forward, vocabulary of the language model; width,
# layers, heads, feed-forward of the vision tower, in the proportions of the published models.
_SHAPES = {
    "small": ((512, 8, 8, 2, 1024, 32_000), (128, 8, 4, 256)),
    "2b": ((1536, 28, 12, 2, 8960, 151_936), (1280, 32, 16, 3420)),
    "7b": ((3584, 28, 28, 4, 18_944, 152_064), (1280, 32, 16, 3420)),
}
PRESETS = ("tiny", *_SHAPES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model, as each column runs it."""

    #: The library's, as it is.
    library: Qwen2_5_VLForConditionalGeneration
    processor: ProcessorMixin
    #: Our view of the library's.
    stock: Qwen25VL
    #: Our own copy with the same weights.
    ours: Qwen25VL
    limits: PixelLimits
    #: Pixels of a drawn image's side.
    side: int


def build(preset: str, device: torch.device) -> Model:
    """A model of that shape, float32 on a CPU and bfloat16 on a GPU, with the demo's tokenizer."""
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig.from_pretrained(scorer_dir())
    processor = AutoProcessor.from_pretrained(scorer_dir())
    if preset in _SHAPES:
        config = _shaped(config.to_dict(), *_SHAPES[preset])
        processor.image_processor.patch_size = _PUBLISHED_PATCH
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with device:
        # Not moved there afterwards: rotary frequencies stay in float32, as in a loaded model.
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype).eval()
    vision = config.vision_config
    side = TOKENS_PER_SIDE * vision.spatial_merge_size * vision.patch_size
    size = {"shortest_edge": side**2, "longest_edge": side**2}
    processor.image_processor.size = size
    return _model(model, processor, preset, side)


def demo_scorer(device: torch.device) -> Model:
    """The bundled scorer, in float32, at its own resolution."""
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(scorer_dir(), dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(scorer_dir())
    return _model(model.eval().to(device), processor, "demo", 0)


def _model(
    model: Qwen2_5_VLForConditionalGeneration, processor: ProcessorMixin, name: str, side: int
) -> Model:
    own = processor.image_processor.size
    return Model(
        library=model,
        processor=processor,
        stock=Qwen25VL(model, processor, name),
        # The baselines run the library's model as it is.
        ours=Qwen25VL(patch_conv_as_linear(deepcopy(model)), processor, name),
        limits=PixelLimits(min_pixels=own["shortest_edge"], max_pixels=own["longest_edge"]),
        side=side,
    )


def _shaped(
    config: dict[str, Any], language: tuple[int, ...], vision: tuple[int, ...]
) -> Qwen2_5_VLConfig:
    width, layers, heads, shared, feed, vocabulary = language
    text = {
        **config["text_config"],
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": shared,
        "intermediate_size": feed,
        "vocab_size": vocabulary,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [part * (width // heads) // 128 for part in (16, 24, 24)],
        },
    }
    del text["layer_types"]
    v_width, v_layers, v_heads, v_feed = vision
    tower = {
        **config["vision_config"],
        "hidden_size": v_width,
        "depth": v_layers,
        "num_heads": v_heads,
        "intermediate_size": v_feed,
        "out_hidden_size": width,
        "patch_size": _PUBLISHED_PATCH,
        "window_size": 112,
        "fullatt_block_indexes": list(range(7, v_layers, 8)),
    }
    return Qwen2_5_VLConfig(**{**config, "text_config": text, "vision_config": tower})
