"""Choosing a device and loading onto it; what is not whole is refused."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nightshift.models.load import (
    load_embedder,
    load_scorer,
    pick_device,
    release_device_memory,
)
from nightshift.schema.errors import ConfigurationError, ModelError
from nightshift.schema.runs import ScorerParams


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
