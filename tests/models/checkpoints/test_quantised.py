"""Quantised checkpoints: loaded where their packages are, and read like any other."""

import json
import shutil
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoProcessor, BitsAndBytesConfig, Qwen2_5_VLForConditionalGeneration
from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer
from transformers.quantizers.quantizer_finegrained_fp8 import FineGrainedFP8HfQuantizer

from nightshift.models.checkpoints.describe import describe_scorer
from nightshift.models.checkpoints.loading import attention_for
from nightshift.models.engine.family import Family, PixelLimits
from nightshift.models.engine.plain import PlainEngine
from nightshift.models.engine.protocol import Group
from nightshift.models.load import load_family
from nightshift.models.scorers.binding import engine_for
from nightshift.schema.errors import ModelError
from nightshift.schema.params import ScorerParams
from tests.models.readings import ON, assert_same, numbers, score
from tests.models.tiny import random_image

GROUPS = [
    Group(
        prefix=(random_image(1), "Does the image match the caption:"),
        suffixes=tuple((f" <{text}>? True or False",) for text in ("a red square", "x")),
    )
]
# Rows and columns that share a scale.
_BLOCK = 32
# Where AWQ keeps eight outputs in one number, lowest bits first.
_AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]
_HAS_AWQ = find_spec("gptqmodel") is not None

FEWER_BITS = [
    "four_bits",
    "eight_bits",
    pytest.param("awq", marks=pytest.mark.skipif(not _HAS_AWQ, reason="needs the extra awq")),
]


def load(folder: Path) -> Family:
    return load_family(describe_scorer(f"hf:{folder}@float32", ScorerParams()), device="cpu")


@pytest.fixture(scope="module")
def four_bits(qwen_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the tiny model, its linear layers in four bits by bitsandbytes."""
    how = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.float32,
        llm_int8_skip_modules=["lm_head"],
    )
    return saved(qwen_folder, tmp_path_factory.mktemp("four-bits"), how)


@pytest.fixture(scope="module")
def eight_bits(qwen_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the tiny model, the layers of its decoder in eight-bit floats with scales."""
    folder = shutil.copytree(qwen_folder, tmp_path_factory.mktemp("eight-bits") / "model")
    weights = {}
    for name, weight in load_file(qwen_folder / "model.safetensors").items():
        weights[name] = weight
        if ".layers." in name and weight.ndim == 2 and not any(n % _BLOCK for n in weight.shape):
            weights[name], weights[f"{name}_scale_inv"] = _in_blocks(weight)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    how = {
        "quant_method": "fp8",
        "activation_scheme": "dynamic",
        "weight_block_size": [_BLOCK, _BLOCK],
        "modules_to_not_convert": ["lm_head", "visual"],
    }
    with_config(folder, quantization_config=how)
    return folder


def _in_blocks(weight: Tensor) -> tuple[Tensor, Tensor]:
    blocks = weight.unflatten(1, (-1, _BLOCK)).unflatten(0, (-1, _BLOCK))
    scales = blocks.abs().amax(dim=(1, 3)) / torch.finfo(torch.float8_e4m3fn).max
    stored = (blocks / scales[:, None, :, None]).to(torch.float8_e4m3fn)
    return stored.reshape(weight.shape), scales


@pytest.fixture(scope="module")
def awq(qwen_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the tiny model, the layers of its decoder in AWQ's four bits."""
    folder = shutil.copytree(qwen_folder, tmp_path_factory.mktemp("awq") / "model")
    weights = {}
    for name, weight in load_file(qwen_folder / "model.safetensors").items():
        if ".layers." in name and weight.ndim == 2:
            stem = name.removesuffix("weight")
            weights |= {f"{stem}{part}": stored for part, stored in _in_groups(weight).items()}
        else:
            weights[name] = weight
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    how = {
        "quant_method": "awq",
        "bits": 4,
        "group_size": _BLOCK,
        "zero_point": True,
        "version": "gemm",
        # Published ones name it as it was called before transformers 5.
        "modules_to_not_convert": ["visual"],
    }
    with_config(folder, quantization_config=how)
    return folder


def _in_groups(weight: Tensor) -> dict[str, Tensor]:
    groups = weight.float().T.unflatten(0, (-1, _BLOCK))
    low, high = groups.amin(1).clamp(max=0), groups.amax(1).clamp(min=0)
    scales = (high - low) / 15
    zeros = (-low / scales).round()
    numbers = (groups / scales[:, None] + zeros[:, None]).round().clamp(0, 15).flatten(0, 1)
    return {"qweight": _eights(numbers), "qzeros": _eights(zeros), "scales": scales.half()}


def _eights(numbers: Tensor) -> Tensor:
    eights = numbers.long().unflatten(1, (-1, 8))[:, :, _AWQ_ORDER]
    complete = (eights << 4 * torch.arange(8)).sum(2)
    return torch.where(complete < 2**31, complete, complete - 2**32).int()


def saved(qwen_folder: Path, folder: Path, how: BitsAndBytesConfig) -> Path:
    """The tiny model as bitsandbytes stores it."""
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        qwen_folder, quantization_config=how, dtype=torch.float32
    )
    model.save_pretrained(folder)
    AutoProcessor.from_pretrained(qwen_folder).save_pretrained(folder)
    return folder


def with_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_four_bits_are_kept_in_memory(four_bits: Path) -> None:
    assert "Linear4bit" in repr(load(four_bits).decoder.feed_forwards[0])


@pytest.mark.parametrize("bits", FEWER_BITS)
def test_fewer_bits_read_packed_what_they_read_whole_and_nearly_what_all_bits_read(
    bits: str, qwen: Family, request: pytest.FixtureRequest
) -> None:
    family = load(request.getfixturevalue(bits))

    readings = score(engine_for(family, PixelLimits()), GROUPS, ON)

    assert_same(readings, score(PlainEngine(family, PixelLimits()), GROUPS, ON))
    exact = numbers(score(engine_for(qwen, PixelLimits()), GROUPS, ON))
    assert 0 < abs(numbers(readings) - exact).max() < 0.5


@pytest.mark.parametrize("bits", FEWER_BITS)
def test_gates_are_measured_by_their_weights_not_by_what_is_stored_of_them(
    bits: str, qwen: Family, request: pytest.FixtureRequest
) -> None:
    assert load(request.getfixturevalue(bits)).decoder.gate_sizes == pytest.approx(
        qwen.decoder.gate_sizes, rel=0.05
    )


def test_names_of_what_is_not_quantised_are_found_at_any_depth(
    qwen_folder: Path, tmp_path: Path
) -> None:
    """Published four-bit checkpoints say `merger`, for what is `model.visual.merger` now."""
    how = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_compute_dtype=torch.float32,
        llm_int8_skip_modules=["lm_head", "model.visual.merger"],
    )
    saved(qwen_folder, tmp_path, how)
    as_written = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    as_published = {**as_written, "llm_int8_skip_modules": ["lm_head", "merger"]}
    expected = score(engine_for(load(tmp_path), PixelLimits()), GROUPS, ON)
    with_config(tmp_path, quantization_config=as_published)

    assert_same(score(engine_for(load(tmp_path), PixelLimits()), GROUPS, ON), expected)
    with_config(tmp_path, quantization_config={**as_published, "llm_int8_skip_modules": None})
    with pytest.raises(ModelError, match=r"2 layers are not quantised .*model\.visual\.merger"):
        load(tmp_path)


def test_what_the_configuration_of_the_language_model_says_of_bits_is_heeded(
    four_bits: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(four_bits, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["quantization_config"] = config.pop("quantization_config")
    (folder / "config.json").write_text(json.dumps(config))

    assert "Linear4bit" in repr(load(folder).decoder.feed_forwards[0])


def test_eight_bit_floats_are_unpacked_for_their_kernels_would_be_fetched_as_code(
    eight_bits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of its own accord transformers unpacks them where no GPU has such numbers.
    monkeypatch.setattr(FineGrainedFP8HfQuantizer, "validate_environment", lambda *_, **__: None)

    family = load(eight_bits)

    assert "FP8" not in repr(family.decoder.feed_forwards[0])
    assert {parameter.dtype for parameter in family.decoder.layers[0].parameters()} == {
        torch.float32
    }


def test_a_quantised_head_is_refused(qwen_folder: Path, tmp_path: Path) -> None:
    how = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["visual"])

    with pytest.raises(ModelError, match="output head is quantised"):
        load(saved(qwen_folder, tmp_path, how))


def test_kernels_that_compute_in_another_precision_than_planned_are_refused(
    four_bits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What AWQ does on a GPU, which bitsandbytes stands in for.
    monkeypatch.setattr(Bnb4BitHfQuantizer, "update_dtype", lambda *_: torch.float16)

    with pytest.raises(ModelError, match=r"in float16 here, not in float32 .* append @float16"):
        load(four_bits)


class _NoWeight(nn.Module):
    """As layers of AWQ and GPTQ are: what is stored goes by other names."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.qweight = linear.weight

    def forward(self, states: Tensor) -> Tensor:
        return functional.linear(states, self.qweight)


def test_gates_without_a_weight_are_measured_all_the_same(qwen: Any) -> None:
    model = deepcopy(qwen._model)
    for layer in model.model.language_model.layers:
        layer.mlp.gate_proj = _NoWeight(layer.mlp.gate_proj)

    gate_sizes = type(qwen)(model, qwen._processor, "some/model").decoder.gate_sizes

    assert gate_sizes == pytest.approx(qwen.decoder.gate_sizes)


def test_a_head_without_a_weight_is_refused(qwen: Any) -> None:
    model = deepcopy(qwen._model)
    model.lm_head = _NoWeight(model.lm_head)

    with pytest.raises(ModelError, match=r"some/model: its output head is quantised"):
        type(qwen)(model, qwen._processor, "some/model")


@pytest.mark.skipif(_HAS_AWQ, reason="the package is installed")
def test_a_missing_package_is_named(qwen_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(qwen_folder, tmp_path / "model")
    with_config(folder, quantization_config={"quant_method": "awq", "bits": 4})

    with pytest.raises(ModelError, match=r"quantised \(awq\), which needs gptqmodel"):
        load(folder)


@pytest.mark.parametrize(
    ("device", "capability", "dtype", "causal", "installed", "chosen"),
    [
        ("cuda", (8, 0), torch.bfloat16, True, True, "flash_attention_2"),
        ("cuda", (9, 0), torch.float16, True, True, "flash_attention_2"),
        ("cuda", (8, 0), torch.bfloat16, True, False, "sdpa"),
        ("cuda", (8, 0), torch.bfloat16, False, True, "sdpa"),
        ("cuda", (8, 0), torch.float32, True, True, "sdpa"),
        ("cuda", (7, 5), torch.float16, True, True, "sdpa"),
        ("cpu", (8, 0), torch.bfloat16, True, True, "sdpa"),
    ],
)
def test_flash_attention_runs_where_it_is_installed_and_device_type_and_mask_allow(
    device: str,
    capability: tuple[int, int],
    dtype: torch.dtype,
    causal: bool,
    installed: bool,
    chosen: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = "nightshift.models.checkpoints.loading.is_flash_attn_2_available"
    monkeypatch.setattr(module, lambda: installed)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: capability)

    results = attention_for(
        Qwen2_5_VLForConditionalGeneration, torch.device(device), dtype, causal=causal
    )

    assert results == chosen
