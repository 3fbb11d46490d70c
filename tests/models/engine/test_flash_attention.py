"""Calls of FlashAttention, run in plain PyTorch, give the values of PyTorch's own attention.

The kernels run on GPUs only; what would go wrong here is a mask that they cannot express.
"""

import sys
from collections import Counter
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel, modeling_flash_attention_utils

from nightshift.models.checkpoints.describe import FAMILIES
from nightshift.models.engine.family import PixelLimits
from nightshift.models.engine.plain import PlainEngine
from nightshift.models.engine.protocol import Group, Reading
from tests.models.readings import OFF, ON, assert_same, score
from tests.models.tiny import random_image
from tests.models.tiny_families import loaded, save_family

# Visual tokens of Gemma 3 look ahead, so PyTorch's own attention is chosen.
CAUSAL = [name for name in FAMILIES if name != "gemma3"]
GROUPS = [
    Group(
        prefix=(random_image(1, (90, 40)), "Does the image match the caption:"),
        suffixes=((" <a red square>? True or False",), (" <x>? True or False",)),
    ),
    Group(prefix=("Is red blue?",), suffixes=((" <yes>? True or False",),)),
]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Number of calls of each kind of attention in the package `flash-attn`."""
    counted: Counter[str] = Counter()

    def attend(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        softmax_scale: float | None = None,
        causal: bool = False,
        **others: Any,
    ) -> Tensor:
        # (batch, length, heads, width); the causal mask ends at the last key.
        assert not any(others.values()), others
        counted["causal" if causal else "full"] += 1
        n, m = query.shape[1], key.shape[1]
        mask = torch.ones(n, m, dtype=torch.bool).tril(m - n) if causal else None
        heads = [entry.transpose(1, 2) for entry in (query, key, value)]
        results = functional.scaled_dot_product_attention(
            *heads, attn_mask=mask, scale=softmax_scale, enable_gqa=True
        )
        return results.transpose(1, 2)

    def attend_each(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        **others: Any,
    ) -> Tensor:
        # (lengths in a row, heads, width), cut at the sums of their lengths.
        assert cu_seqlens_q.equal(cu_seqlens_k)
        sizes = cu_seqlens_q.diff().tolist()
        rows = zip(*(entry.split(sizes) for entry in (query, key, value)), strict=True)
        return torch.cat([attend(*(entry[None] for entry in row), **others)[0] for row in rows])

    package: Any = ModuleType("flash_attn")
    package.flash_attn_func, package.flash_attn_varlen_func = attend, attend_each
    package.flash_attn_with_kvcache = None
    padding: Any = ModuleType("flash_attn.bert_padding")
    padding.pad_input = padding.unpad_input = None
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    monkeypatch.setitem(sys.modules, "flash_attn.bert_padding", padding)
    upstream = modeling_flash_attention_utils
    monkeypatch.setattr(upstream, "is_flash_attn_2_available", lambda: True)
    monkeypatch.setattr(upstream, "_loaded_implementation", None)
    monkeypatch.setattr(PreTrainedModel, "_flash_attn_can_dispatch", lambda *_, **__: True)
    return counted


@pytest.mark.parametrize("name", CAUSAL)
def test_whole_prompts_and_the_vision_tower_read_the_same_with_flash_attention(
    name: str, calls: Counter[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    family: Any = loaded(name, save_family(name, tmp_path_factory.mktemp("x") / name))
    engine = PlainEngine(family, PixelLimits())

    def everything() -> list[list[Reading]]:
        family.vision_cache.clear()
        return [score(engine, GROUPS, params) for params in (OFF, ON)]

    readings = everything()
    assert not calls
    family._model.set_attn_implementation("flash_attention_2")
    results = everything()

    assert calls["causal"]
    assert calls["full"]
    for result, other in zip(results, readings, strict=True):
        assert_same(result, other)
