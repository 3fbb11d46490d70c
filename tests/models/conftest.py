"""Tiny models, built once a session."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from nightshift.models.checkpoints.describe import describe_scorer
from nightshift.models.families import qwen2_5_vl
from nightshift.models.families.qwen2_5_vl import Qwen25VL
from nightshift.schema.params import ScorerParams
from tests.models import tiny


@pytest.fixture(scope="session")
def qwen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2.5-VL of 18 layers."""
    return tiny.save_qwen(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="session")
def qwen(qwen_folder: Path) -> Qwen25VL:
    """The same, loaded in float32 on the CPU."""
    facts = describe_scorer(f"hf:{qwen_folder}@float32", ScorerParams())
    return qwen2_5_vl.load(facts, torch.device("cpu"))


@pytest.fixture(scope="session")
def open_clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random open_clip model."""
    return tiny.save_open_clip(tmp_path_factory.mktemp("open_clip"))


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP of transformers."""
    return tiny.save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def siglip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random SigLIP of transformers."""
    return tiny.save_siglip(tmp_path_factory.mktemp("siglip"))


@pytest.fixture(autouse=True)
def no_hook_is_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """The tests of a session share a model, so each takes its hooks off again."""
    if "qwen" not in request.fixturenames:
        yield
        return
    modules = list(request.getfixturevalue("qwen")._model.modules())
    yield
    hooks = [m for m in modules if m._forward_hooks or m._forward_pre_hooks]
    assert hooks == [], "the test left hooks on the model that all tests share"
