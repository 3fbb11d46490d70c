"""A model that cannot be loaded is refused when planning, with its fault and the remedy."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from nightshift.models.checkpoints.describe import describe_embedder, describe_scorer
from nightshift.models.checkpoints.files import digests
from nightshift.models.preflight import loadable
from nightshift.models.preflight.loadable import require_loadable
from nightshift.schema.errors import ModelError
from nightshift.schema.params import ScorerParams

LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4567890\n"


def _plan(spec: str, *, embedder: bool = False) -> None:
    """Check a model as a command does before it plans anything."""
    if not embedder:
        require_loadable(describe_scorer(spec, ScorerParams()), ScorerParams())
    else:
        require_loadable(describe_embedder(spec))


@pytest.fixture(autouse=True)
def _nothing_has_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loadable, "user_cache_path", lambda _: tmp_path / "cache")


@pytest.fixture
def folder(qwen_folder: Path, tmp_path: Path) -> Path:
    """A whole checkpoint, to be spoilt."""
    return Path(shutil.copytree(qwen_folder, tmp_path / "model"))


def _adapter(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_file({}, folder / "adapter_model.safetensors")


def _adapter_beside_a_model(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')


def _pointer(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).write_text(LFS_POINTER)

    return spoil


def _without(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def _emptied(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def _other_weights(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "model.safetensors").rename(folder / name)


def _holding(*names: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        _emptied(folder)
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("{}")

    return spoil


def _config(**changes: object) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        file = folder / "config.json"
        config = {**json.loads(file.read_text()), **changes}
        file.write_text(
            json.dumps({key: value for key, value in config.items() if value is not None})
        )

    return spoil


def _cut_short(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 3000)


def _with_a_pipe(folder: Path) -> None:
    (folder / "generation_config.json").unlink(missing_ok=True)
    os.mkfifo(folder / "generation_config.json")


def _lacking_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights[max(weights)]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_adapter, "holds an adapter .* merge it first"),
        (_adapter_beside_a_model, "merge it first .* merged already, delete adapter_config.json"),
        (_pointer("model.safetensors"), "model.safetensors as a git-lfs pointer.* `git lfs pull`"),
        (_pointer("tokenizer.json"), "tokenizer.json as a git-lfs pointer.* `git lfs pull`"),
        (_pointer("config.json"), "config.json as a git-lfs pointer.* `git lfs pull`"),
        (_without("config.json"), "has no config.json: give the directory"),
        (_without("tokenizer.json"), "tokenizer"),
        (_without("processor_config.json"), "processor"),
        (_emptied, "is empty"),
        (_other_weights("pytorch_model.bin"), "no .safetensors weights, only pytorch_model.bin"),
        (_other_weights("model-q4.gguf"), "no .safetensors weights, only GGUF"),
        (_holding("model-q4.gguf"), "has no config.json: its weights are GGUF"),
        (_holding("model_index.json", "unet/config.json"), "a pipeline of diffusers"),
        (_holding("modules.json", "0_CLIP/config.json"), "sentence-transformers; 0_CLIP in it"),
        (_holding("checkpoint-500/config.json"), "checkpoint-500 in it has one: give that"),
        (_holding("refs/main", "snapshots/abc/config.json"), "snapshots/abc"),
        (_holding("open_clip_config.json"), "a model of open_clip, so write open_clip:"),
        (_config(model_type=None), "names no model_type"),
        (_config(quantization_config={"quant_method": "gptq"}), r"gptqmodel .*'\.\[awq\]'"),
        (_with_a_pipe, "generation_config.json, which is neither a file nor a directory"),
        (_cut_short, "model.safetensors is missing or damaged"),
        (_lacking_a_weight, "1 of its weights are not in its files"),
    ],
)  # fmt: skip
def test_what_is_no_whole_model_is_refused_when_planning(
    folder: Path, spoil: Callable[[Path], object], said: str
) -> None:
    spoil(folder)

    with pytest.raises(ModelError, match=said) as refused:
        _plan(f"hf:{folder}")

    assert str(folder) in refused.value.message
    assert "\n" not in refused.value.message


def test_a_pointer_that_nobody_reads_does_no_harm(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_text(LFS_POINTER)

    _plan(f"hf:{folder}")


def test_a_file_in_place_of_a_directory_is_called_one(folder: Path) -> None:
    with pytest.raises(ModelError, match="is a file: give the directory"):
        _plan(f"hf:{folder / 'model.safetensors'}")


@pytest.mark.parametrize("library", ["hf", "freeret"])
@pytest.mark.parametrize("named", ["../away.safetensors", "{away}", "linked.safetensors"])
def test_an_index_of_weights_may_not_name_files_outside_its_directory(
    folder: Path, library: str, named: str
) -> None:
    away = folder.parent / "away.safetensors"
    shutil.copy(folder / "model.safetensors", away)
    (folder / "linked.safetensors").symlink_to(away)
    weights = {"weight_map": {"a": named.format(away=away)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(weights))

    with pytest.raises(ModelError, match="outside its directory"):
        _plan(f"{library}:{folder}", embedder=library == "freeret")


@pytest.mark.parametrize("embedder", ["open_clip", "clip"])
def test_nor_may_that_of_an_embedder(
    embedder: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = shutil.copytree(request.getfixturevalue(f"{embedder}_folder"), tmp_path / "model")
    weights = {"weight_map": {"a": "../../etc/passwd"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(weights))

    with pytest.raises(ModelError, match="outside its directory"):
        describe_embedder(f"{'hf' if embedder == 'clip' else embedder}:{folder}")


def test_blobs_of_the_hubs_cache_are_inside(folder: Path) -> None:
    cached = folder.parent / "models--org--name"
    snapshot, blob = cached / "snapshots" / ("c" * 40), cached / "blobs" / "0123"
    blob.parent.mkdir(parents=True)
    shutil.copytree(folder, snapshot)
    (snapshot / "model.safetensors").rename(blob)
    (snapshot / "model.safetensors").symlink_to("../../blobs/0123")
    weights = {"weight_map": {"a": "model.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(weights))

    assert "model.safetensors" in digests(snapshot)


def test_weights_in_a_folder_below_are_part_of_the_fingerprint(folder: Path) -> None:
    before = digests(folder)
    (folder / "part").mkdir()
    shutil.copy(folder / "model.safetensors", folder / "part" / "a.safetensors")
    (folder / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "part/a.safetensors"}}'
    )

    assert digests(folder).keys() - before.keys() == {
        "model.safetensors.index.json", "part/a.safetensors",
    }  # fmt: skip


@pytest.mark.parametrize("embedder", ["open_clip", "clip"])
def test_an_embedder_whose_weights_do_not_fit_is_refused_when_planning(
    embedder: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = shutil.copytree(request.getfixturevalue(f"{embedder}_folder"), tmp_path / "model")
    (file,) = folder.glob("*.safetensors")
    spec = f"{'hf' if embedder == 'clip' else embedder}:{folder}"
    _plan(spec, embedder=True)
    weights = load_file(file)
    del weights[max(weights)]
    save_file(weights, file, metadata={"format": "pt"})

    with pytest.raises(ModelError, match="cannot be loaded"):
        _plan(spec, embedder=True)


def test_a_model_that_passed_is_not_looked_at_again_until_a_file_of_it_changes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examined = []
    examine = loadable.examine
    monkeypatch.setattr(
        loadable, "examine", lambda *given: examined.append(given) or examine(*given)
    )

    _plan(f"hf:{folder}")
    _plan(f"hf:{folder}")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('none') }}")
    with pytest.raises(ModelError, match="no usable chat template: none"):
        _plan(f"hf:{folder}")

    assert len(examined) == 2
