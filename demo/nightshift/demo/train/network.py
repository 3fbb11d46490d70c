"""The scorer's architecture, and a forward pass for training on images of one size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import (
    PreTrainedTokenizerBase,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VLVisionBlock,
    apply_rotary_pos_emb_vision,
)
from transformers.vision_utils import get_vision_position_ids

from nightshift.demo.render import IMAGE_SIZE
from nightshift.demo.train.pool import SIDE
from nightshift.demo.train.rows import IGNORED, Row, RowMaker, positions
from nightshift.demo.train.tokenizers import token_id

_PATCH = IMAGE_SIZE // (2 * SIDE)
_MAX_PIXELS = (2 * IMAGE_SIZE) ** 2
_WIDTH = 128
_HEADS = 4
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows padded on the right to one length, and the images they share.

    Shapes: `ids`, `answers`, `words`, `fits`, `suffixes`
    `[rows, length]`, `places` `[3, rows, length]`, `images`
    `[rows' images in reading order]` (indices), `patches` `[distinct images, 100, 384]`.
    """

    ids: Tensor
    answers: Tensor
    words: Tensor
    fits: Tensor
    suffixes: Tensor
    places: Tensor
    images: Tensor
    patches: Tensor


def build_model(tokenizer: PreTrainedTokenizerBase) -> Qwen2_5_VLForConditionalGeneration:
    """An untrained Qwen2.5-VL of about two million parameters."""
    end = token_id(tokenizer, "<|im_end|>")
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": _WIDTH,
            "intermediate_size": 3 * _WIDTH,
            "num_hidden_layers": 6,
            "num_attention_heads": _HEADS,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 3.0,
                "mrope_section": [4, 6, 6],
            },
            "bos_token_id": None,
            "eos_token_id": end,
            "pad_token_id": token_id(tokenizer, "<|endoftext|>"),
        },
        vision_config={
            "depth": 4,
            "hidden_size": _WIDTH,
            "intermediate_size": 2 * _WIDTH,
            "num_heads": _HEADS,
            "patch_size": _PATCH,
            "out_hidden_size": _WIDTH,
            "window_size": IMAGE_SIZE,
            "fullatt_block_indexes": [1, 3],
            "rope_parameters": {"rope_type": "axial", "rope_theta": 30.0},
        },
        image_token_id=token_id(tokenizer, "<|image_pad|>"),
        video_token_id=token_id(tokenizer, "<|video_pad|>"),
        vision_start_token_id=token_id(tokenizer, "<|vision_start|>"),
        vision_end_token_id=token_id(tokenizer, "<|vision_end|>"),
        tie_word_embeddings=True,
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def build_processor(tokenizer: PreTrainedTokenizerBase) -> Qwen2_5_VLProcessor:
    """The processor that goes with the model: 25 visual tokens for a demo image, at most 100."""
    sizes = {"shortest_edge": IMAGE_SIZE**2, "longest_edge": _MAX_PIXELS}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=_PATCH, size=sizes),
        video_processor=Qwen2VLVideoProcessor(patch_size=_PATCH, size=sizes),
        tokenizer=tokenizer,
        chat_template=tokenizer.chat_template,
    )


def patches_of(images: NDArray[np.uint8]) -> Tensor:
    """Cut images `[n, 80, 80, 3]` into normalised patches `[n, 100, 384]`, as the processor."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    pixels = (pixels - torch.tensor(_MEAN).view(3, 1, 1)) / torch.tensor(_STD).view(3, 1, 1)
    cut = pixels.view(-1, 3, SIDE, 2, _PATCH, SIDE, 2, _PATCH).permute(0, 2, 5, 3, 6, 1, 4, 7)
    twice = cut.unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, 2, -1, -1)
    return twice.reshape(len(images), 4 * SIDE**2, 6 * _PATCH**2)


def collate(rows: Sequence[Row], images: NDArray[np.uint8], maker: RowMaker) -> Batch:
    """Stack rows over the images `[n, 80, 80, 3]` that they point to."""
    length = max(len(row.ids) for row in rows)

    def stacked(name: str, filler: int) -> Tensor:
        lists = [getattr(row, name) for row in rows]
        return torch.tensor([line + [filler] * (length - len(line)) for line in lists])

    places = np.stack([positions(row, maker.image_token, length) for row in rows], axis=1)
    return Batch(
        ids=stacked("ids", maker.padding),
        answers=stacked("answers", IGNORED),
        words=stacked("words", IGNORED),
        fits=stacked("fits", IGNORED),
        suffixes=stacked("suffixes", 0),
        places=torch.from_numpy(places),
        images=torch.tensor([image for row in rows for image in row.images]),
        patches=patches_of(images),
    )


def hidden_states(
    model: Qwen2_5_VLForConditionalGeneration, batch: Batch, encoded: Tensor | None = None
) -> Tensor:
    """The last hidden states `[rows, length, width]`.

    Each distinct image is encoded once; `encoded` holds visual tokens made by `see` before.
    """
    encoded = see(model, batch.patches) if encoded is None else encoded
    embedded = model.get_input_embeddings()(batch.ids)
    at = (batch.ids == model.config.image_token_id).unsqueeze(-1)
    tokens = encoded[batch.images].flatten(0, 1).to(embedded.dtype)
    output = model.model.language_model(
        inputs_embeds=embedded.masked_scatter(at, tokens),
        attention_mask=_mask(batch.suffixes),
        position_ids=batch.places,
        use_cache=False,
    )
    states: Tensor = output.last_hidden_state
    return states


def losses(
    model: Qwen2_5_VLForConditionalGeneration, states: Tensor, batch: Batch
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of the labels, and of the caption words; zero where none is asked."""
    return _loss(model, states, batch.answers), _loss(model, states, batch.words)


def see(model: Qwen2_5_VLForConditionalGeneration, patches: Tensor) -> Tensor:
    """Visual tokens `[n, 25, width]` of `[n, 100, 384]` patches, all images in one pass.

    The library's own tower walks over the images one by one; a test holds both equal.
    """
    tower = model.model.visual
    count, length, _ = patches.shape
    grid = torch.tensor([[1, 2 * SIDE, 2 * SIDE]])
    x = tower.patch_embed(patches.flatten(0, 1))
    cos, sin = tower.rotary_pos_emb(x, get_vision_position_ids(grid, 2))
    x = x.view(count, length, -1)
    for block in tower.blocks:
        x = _through(cast("Qwen2_5_VLVisionBlock", block), x, cos, sin)
    merged: Tensor = tower.merger(x)
    return merged.view(count, SIDE**2, -1)


def _mask(suffixes: Tensor) -> dict[str, Tensor] | None:
    """Who may look at whom `[rows, 1, length, length]`: a suffix at the beginning and at itself."""
    if not suffixes.any():
        return None
    recorded, looking = suffixes[:, None, None, :], suffixes[:, None, :, None]
    causal = torch.ones(suffixes.shape[1], suffixes.shape[1], dtype=torch.bool).tril()
    return {"full_attention": causal & ((recorded == 0) | (recorded == looking))}


def _through(block: Qwen2_5_VLVisionBlock, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    count, length, width = x.shape
    heads = (count, length, 3, block.attn.num_heads, -1)
    q, k, v = block.attn.qkv(block.norm1(x)).view(heads).unbind(2)
    q, k = apply_rotary_pos_emb_vision(q, k, cos, sin)
    mixed = functional.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    )
    x = x + block.attn.proj(mixed.transpose(1, 2).reshape(count, length, width))
    out: Tensor = x + block.mlp(block.norm2(x))
    return out


def _loss(model: Qwen2_5_VLForConditionalGeneration, states: Tensor, targets: Tensor) -> Tensor:
    requested = targets != IGNORED
    logits = model.lm_head(states[requested])
    total = functional.cross_entropy(logits, targets[requested], reduction="sum")
    return total / max(1, int(requested.sum()))
