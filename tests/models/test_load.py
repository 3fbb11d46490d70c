"""Choosing a device and loading onto it; what is not whole is refused."""

import inspect
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, modeling_utils

from nightshift.models import cache
from nightshift.models.cache import ModelCache
from nightshift.models.checkpoints.describe import describe_scorer, describe_vision
from nightshift.models.checkpoints.load_errors import not_loaded
from nightshift.models.devices import pick_device, release_device_memory
from nightshift.models.load import load_embedder, load_family, load_scorer
from nightshift.models.scorers.protocol import Scorer
from nightshift.schema.errors import ConfigurationError, ModelError
from nightshift.schema.params import ScorerParams
from tests.models.tiny_families import save_family


def test_the_device_is_the_gpu_where_there_is_one() -> None:
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="--device"):
        pick_device(name)


def test_releasing_memory_does_not_initialise_cuda() -> None:
    before = torch.cuda.is_initialized()

    release_device_memory()

    assert torch.cuda.is_initialized() == before


def test_what_a_load_that_fails_leaves_behind_is_cleared_away_before_the_next(
    qwen_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = describe_scorer(f"hf:{qwen_folder}@float32", ScorerParams())
    models = ModelCache(device="cpu")
    cleared = []
    monkeypatch.setattr(cache, "release_device_memory", lambda: cleared.append(True))

    def full(*_: object, **__: object) -> object:
        raise torch.OutOfMemoryError("no room")

    def load() -> Scorer:
        return models.scorer(facts.spec, ScorerParams(), facts.fingerprint)

    with monkeypatch.context() as patch, pytest.raises(torch.OutOfMemoryError):
        patch.setattr(cache, "load_family", full)
        load()
    assert load() is load()

    assert len(cleared) == 2


@pytest.fixture(params=["embedder", "scorer"])
def model(
    request: pytest.FixtureRequest, clip_folder: Path, qwen_folder: Path, tmp_path: Path
) -> tuple[Path, Callable[[], object]]:
    """A folder to damage, and what loads it."""
    if request.param == "embedder":
        folder = shutil.copytree(clip_folder, tmp_path / "model")
        return folder, lambda: load_embedder(f"hf:{folder}", device="cpu")
    folder = shutil.copytree(qwen_folder, tmp_path / "model")
    return folder, lambda: load_scorer(f"hf:{folder}@float32", ScorerParams(), device="cpu")


def test_a_model_whose_files_lack_weights_is_refused_and_they_are_named(
    model: tuple[Path, Callable[[], object]],
) -> None:
    folder, load = model
    weights = load_file(folder / "model.safetensors")
    lost = max(weights)
    del weights[lost]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(ModelError, match=rf"{folder}.* 1 of its weights .*{lost} is missing"):
        load()


def test_scales_that_transformers_does_not_take_are_refused_with_their_weights(
    model: tuple[Path, Callable[[], object]],
) -> None:
    folder, load = model
    weights = load_file(folder / "model.safetensors")
    scaled = max(name for name in weights if name.endswith(".weight"))
    weights[f"{scaled}_scale_inv"] = torch.ones(1)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(ModelError, match=rf"{scaled}_scale_inv is of no use to transformers"):
        load()


def test_a_model_on_a_hub_without_safetensors_is_refused_with_what_to_do() -> None:
    advice = "Please do not set `use_safetensors=True`"
    assert advice in inspect.getsource(modeling_utils), "transformers says it otherwise now"

    said = not_loaded("hf:some/model", OSError(f"some/model has no such file. {advice}.")).message

    assert "hf:some/model has no weights in safetensors" in said
    assert "choose a checkpoint that has them" in said
    assert advice not in said


def test_a_model_whose_weights_have_other_shapes_than_configured_is_refused(
    model: tuple[Path, Callable[[], object]],
) -> None:
    folder, load = model
    config = (folder / "config.json").read_text()
    sizes = re.compile(r'"intermediate_size": \d+')
    assert sizes.search(config)
    (folder / "config.json").write_text(sizes.sub('"intermediate_size": 96', config))

    with pytest.raises(ModelError, match=rf"{folder}.* is of another shape.*fetch it again"):
        load()


def test_a_head_that_shares_its_weights_with_the_embedding_is_not_missed(
    qwen_folder: Path, tmp_path: Path
) -> None:
    """Smaller published models leave it out of their files."""
    folder = shutil.copytree(qwen_folder, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["tie_word_embeddings"] = True
    (folder / "config.json").write_text(json.dumps(config))

    family = load_family(describe_scorer(f"hf:{folder}@float32", ScorerParams()), device="cpu")

    assert torch.equal(family.decoder.head_weight, weights["model.embed_tokens.weight"])


@pytest.mark.parametrize(
    ("family", "part", "name"),
    [
        ("idefics3", "text_config", "hidden_size"),
        ("qwen3_vl", "vision_config", "deepstack_visual_indexes"),
    ],
)
def test_a_configuration_that_leaves_out_the_default_of_its_class_is_completed(
    family: str, part: str, name: str, tmp_path: Path
) -> None:
    folder = save_family(family, tmp_path / family)
    config = json.loads((folder / "config.json").read_text())
    written = config[part].pop(name)
    (folder / "config.json").write_text(json.dumps(config))
    default = getattr(getattr(AutoConfig.for_model(**config), part), name)
    assert written != default

    dim = describe_vision(f"hf:{folder}", min_pixels=None, max_pixels=None).dim

    width = config["text_config"].get("hidden_size", default)
    assert dim == width * (1 + (len(default) if part == "vision_config" else 0))
