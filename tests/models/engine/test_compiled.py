"""`torch.compile`: the same readings, packed and whole, with the enhancement and without."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from nightshift.models.checkpoints.describe import describe_scorer
from nightshift.models.engine.family import Family, PixelLimits
from nightshift.models.engine.plain import PlainEngine
from nightshift.models.engine.protocol import Group
from nightshift.models.load import load_family
from nightshift.models.scorers.binding import engine_for
from nightshift.schema.errors import ModelError
from nightshift.schema.params import EnhancementParams, ScorerParams
from tests.models.readings import OFF, ON, assert_same, score
from tests.models.tiny import random_image, save_qwen

GROUPS = [
    Group(
        prefix=(random_image(seed), "Does the image match the caption:"),
        suffixes=tuple((f" <{text}>? True or False",) for text in ("a red square", "x")),
    )
    for seed in (1, 2)
]


@pytest.fixture(autouse=True)
def _nothing_compiled_before() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_qwen(tmp_path_factory.mktemp("shallow"), n_layers=3)


def load(folder: Path, *, compiled: bool) -> Family:
    facts = describe_scorer(f"hf:{folder}@float32", ScorerParams())
    return load_family(facts, device="cpu", compiled=compiled)


@pytest.mark.night
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
@pytest.mark.parametrize("params", [OFF, ON, EnhancementParams(trigger=0)], ids=str)
def test_what_is_compiled_reads_the_same(folder: Path, params: EnhancementParams) -> None:
    compiled, plain = load(folder, compiled=True), load(folder, compiled=False)

    expected = score(PlainEngine(plain, PixelLimits()), GROUPS, params)

    assert_same(score(engine_for(compiled, PixelLimits()), GROUPS, params), expected)
    assert_same(score(PlainEngine(compiled, PixelLimits()), GROUPS, params), expected)


def test_a_machine_that_cannot_compile_says_so_when_it_loads(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    monkeypatch.setattr("torch._inductor.config.force_disable_caches", True)

    with pytest.raises(ModelError, match=r"torch\.compile does not work here.*NIGHTSHIFT_COMPILE"):
        load(folder, compiled=True)
