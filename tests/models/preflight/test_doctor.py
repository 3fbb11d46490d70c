"""`doctor` tells beforehand what a worker would find out at night, and loads no weights for it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from transformers import PreTrainedModel

from nightshift.models.checkpoints.describe import (
    describe_embedder,
    describe_scorer,
    describe_vision,
)
from nightshift.models.preflight.doctor import examine_devices, examine_models
from nightshift.schema.findings import Finding
from nightshift.schema.models import ModelFacts, ModelInUse
from nightshift.schema.params import ScorerParams, TokenParams


def _in_use(facts: ModelFacts, **how: object) -> ModelInUse:
    fields = {"used_by": ("run 7",), "waited_for": True, **how}
    return ModelInUse(kind=facts.kind, spec=facts.spec, fingerprint=facts.fingerprint, **fields)


def _scorer(folder: Path) -> ModelInUse:
    return _in_use(describe_scorer(f"hf:{folder}", ScorerParams()), scorer=ScorerParams())


def _look(model: ModelInUse) -> Finding:
    (finding,) = examine_models([model])
    assert finding.check == "model"
    return finding


@pytest.fixture
def copied(qwen_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(qwen_folder, tmp_path / "copy"))


def test_of_a_scorer_it_is_said_what_works(
    qwen_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("weights are being loaded")

    placed = []
    from_pretrained = PreTrainedModel.from_pretrained.__func__

    def note(cls: type, *where: object, **options: object) -> object:
        placed.append(options.get("device_map"))
        return from_pretrained(cls, *where, **options)

    monkeypatch.setattr("safetensors.torch.load_file", load)
    monkeypatch.setattr(PreTrainedModel, "from_pretrained", classmethod(note))

    finding = _look(_scorer(qwen_folder))

    assert finding.level == "ok", finding.message
    assert placed == [{"": torch.device("meta")}]
    for fact in ("run 7", "packed: yes", "visual enhancement: yes", "FreeRet embedding: yes",
                 "stored visual tokens: yes"):  # fmt: skip
        assert fact in finding.message


def test_embedders_and_vision_towers_are_looked_at_too(
    clip_folder: Path, open_clip_folder: Path, qwen_folder: Path
) -> None:
    models = [
        *(
            _in_use(describe_embedder(spec))
            for spec in (
                f"hf:{clip_folder}", f"open_clip:{open_clip_folder}", f"freeret:{qwen_folder}",
            )
        ),
        _in_use(
            describe_vision(f"hf:{qwen_folder}", max_pixels=20_000),
            limits=TokenParams(max_pixels=20_000),
        ),
    ]  # fmt: skip

    results = [_look(model) for model in models]

    assert [result.level for result in results] == ["ok"] * 4, results
    assert "24 numbers a vector" in results[0].message
    assert "24 numbers a vector" in results[1].message
    assert "FreeRet embedding: yes" in results[2].message


def test_a_model_whose_files_have_changed_is_not_the_one_that_was_planned_with(
    copied: Path,
) -> None:
    planned = _scorer(copied)
    (copied / "config.json").write_text((copied / "config.json").read_text() + "\n")

    finding = _look(planned)

    assert finding.level == "error"
    assert planned.fingerprint in finding.message
    assert "have changed" in finding.message


@pytest.mark.parametrize("n_bytes", [0, 1000])
def test_weights_that_are_cut_short_are_named(copied: Path, n_bytes: int) -> None:
    planned = _scorer(copied)
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:n_bytes])

    finding = _look(planned)

    assert finding.level == "error"
    assert f"{weights} is missing or damaged" in finding.message


def test_a_shard_that_is_missing_is_named(copied: Path) -> None:
    planned = _scorer(copied)
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (copied / "model.safetensors.index.json").write_text(json.dumps(index))

    finding = _look(planned)

    assert finding.level == "error"
    assert "model-00002-of-00002.safetensors is missing" in finding.message


def test_a_label_that_is_not_one_token_is_found_out(copied: Path) -> None:
    file = copied / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    merges = tokenizer["model"]["merges"]
    tokenizer["model"]["merges"] = [merge for merge in merges if "".join(merge) != "True"]
    file.write_text(json.dumps(tokenizer))

    finding = _look(_scorer(copied))

    assert finding.level == "error"
    assert "'True'" in finding.message


def test_a_configuration_that_nobody_foresaw_is_a_finding_too(copied: Path) -> None:
    file = copied / "config.json"
    config = json.loads(file.read_text())
    config["text_config"]["rope_parameters"] = {"rope_type": "no-such-rope"}
    file.write_text(json.dumps(config))

    finding = _look(_scorer(copied))

    assert finding.level == "error"
    assert "cannot be loaded on this machine" in finding.message


def test_a_model_that_only_an_index_needs_is_a_warning_where_it_is_gone(copied: Path) -> None:
    planned = _in_use(
        describe_embedder(f"freeret:{copied}"), used_by=("index a", "run 3"), waited_for=False
    )
    shutil.rmtree(copied)

    finding = _look(planned)

    assert finding.level == "warning"
    assert "(index a, run 3) cannot be loaded on this machine" in finding.message
    assert "there is no directory" in finding.message


def test_a_hub_model_is_sought_in_the_cache_alone(
    qwen_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    snapshot = tmp_path / "models--org--qwen" / "snapshots" / ("c" * 40)
    shutil.copytree(qwen_folder, snapshot)
    (tmp_path / "models--org--qwen" / "refs").mkdir()
    (tmp_path / "models--org--qwen" / "refs" / "main").write_text("c" * 40)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    planned = _in_use(describe_scorer("hf:org/qwen", ScorerParams()), scorer=ScorerParams())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    present = _look(planned)
    (snapshot / "model.safetensors").unlink()
    without_weights = _look(planned)
    absent = _look(replace(planned, spec="hf:org/other"))

    assert present.level == "ok", present.message
    assert "a worker here downloads them" in without_weights.message
    assert "config.json is not in the cache of this machine" in absent.message
    assert constants.HF_HUB_OFFLINE is False, "as it was"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_said_that_workers_use_the_cpu() -> None:
    (finding,) = examine_devices()

    assert (finding.check, "workers use the CPU" in finding.message) == ("gpu", True)


def test_a_gpu_that_is_full_is_reported_and_does_not_end_the_examination(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(_number: int) -> tuple[int, int]:
        raise torch.AcceleratorError("CUDA error: out of memory")

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "H100")
    monkeypatch.setattr("torch.cuda.mem_get_info", full)

    (finding,) = examine_devices()

    assert (finding.check, finding.level) == ("gpu", "warning")
    assert "cuda:0 H100 cannot be asked for its memory" in finding.message


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_each_gpu_is_named_with_its_memory() -> None:
    results = list(examine_devices())

    assert len(results) == torch.cuda.device_count()
    assert all("GiB free" in result.message for result in results)
