"""For `benchmarks.scoring`: models of fixed shapes, random weights, pairs of fixed lengths."""

import random
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoProcessor, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from nightshift.demo import scorer_dir
from nightshift.models.content import ItemContent
from nightshift.models.families.qwen2_5_vl import Qwen25VL, quickened
from nightshift.models.scorer import PairGroup

#: 16 × 16 visual tokens of 28 × 28 pixels.
PIXELS = 448
_CAPTION_TOKENS = 20
# Each is one token of the demo's tokenizer when a space precedes it.
_WORDS = ("small", "large", "red", "blue", "grass", "circle", "square", "left", "of", "on", "the")

# Width, layers, heads, key-value heads, feed-forward, vocabulary of the language model; width,
# layers, heads, feed-forward of the vision tower, in the proportions of the published models.
_SHAPES = {
    "small": ((512, 8, 8, 2, 1024, 32_000), (128, 8, 4, 256)),
    "2b": ((1536, 28, 12, 2, 8960, 151_936), (1280, 32, 16, 3420)),
    "7b": ((3584, 28, 28, 4, 18_944, 152_064), (1280, 32, 16, 3420)),
}
PRESETS = ("tiny", *_SHAPES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Pairs to score."""

    name: str
    #: Texts asked of each picture; 1 between pictures.
    queries_per_image: int
    groups: list[PairGroup]


def build(
    preset: str, device: torch.device
) -> tuple[Qwen2_5_VLForConditionalGeneration, Qwen25VL, Qwen25VL]:
    """A model of that shape, float32 on a CPU and bfloat16 on a GPU, with the demo's tokenizer.

    Returns:
        The library's model, our view of it, and our own copy with the same weights.
    """
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig.from_pretrained(scorer_dir())
    if preset in _SHAPES:
        config = _shaped(config.to_dict(), *_SHAPES[preset])
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    config.text_config.max_position_embeddings = 2048  # room for two pictures in a prompt
    with device:
        model = Qwen2_5_VLForConditionalGeneration(config).eval().to(dtype)
    processor = AutoProcessor.from_pretrained(scorer_dir())
    # The baselines run the library's model as it is.
    ours = Qwen25VL(quickened(deepcopy(model)), processor, preset)
    return model, Qwen25VL(model, processor, preset), ours


def cases(count: Callable[[str], int]) -> list[Case]:
    """Every case, drawn anew the same way.

    Args:
        count: Tokens of a text.
    """
    rng = random.Random(0)
    shapes = [("text_to_image", n, m) for n, m in ((1, 16), (4, 4), (16, 2), (64, 1))]
    found = [
        Case(name=name, queries_per_image=n, groups=[_by_picture(rng, n, count) for _ in range(m)])
        for name, n, m in [*shapes, ("image_to_text", 16, 2)]
    ]
    others = tuple(_picture(rng) for _ in range(8))
    group = PairGroup(shared_side="query", shared=_picture(rng), others=others)
    return [*found, Case(name="image_to_image", queries_per_image=1, groups=[group])]


def _by_picture(rng: random.Random, n: int, count: Callable[[str], int]) -> PairGroup:
    texts = tuple(ItemContent(texts=(_caption(rng, count),)) for _ in range(n))
    return PairGroup(shared_side="candidate", shared=_picture(rng), others=texts)


def _picture(rng: random.Random) -> ItemContent:
    pixels = np.random.default_rng(rng.getrandbits(32)).integers(0, 256, (PIXELS, PIXELS, 3))
    return ItemContent(images=(Image.fromarray(pixels.astype(np.uint8)),))


def _caption(rng: random.Random, count: Callable[[str], int]) -> str:
    text = "a " + " ".join(rng.choices(_WORDS, k=_CAPTION_TOKENS - 1))
    assert count(text) == _CAPTION_TOKENS, text
    return text


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
        "window_size": 112,
        "fullatt_block_indexes": list(range(7, v_layers, 8)),
    }
    return Qwen2_5_VLConfig(**{**config, "text_config": text, "vision_config": tower})
