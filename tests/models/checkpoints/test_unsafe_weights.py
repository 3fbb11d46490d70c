"""A model is data: nothing that lies in its folder is run."""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from nightshift.models.checkpoints.describe import describe_embedder
from nightshift.models.inputs.content import ItemContent
from nightshift.models.load import load_embedder, load_scorer
from nightshift.schema.errors import ModelError
from nightshift.schema.params import ScorerParams


class _Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("library", ["hf", "open_clip"])
def test_a_pickle_that_is_called_safetensors_is_not_unpickled(
    library: str, clip_folder: Path, open_clip_folder: Path, tmp_path: Path
) -> None:
    source = clip_folder if library == "hf" else open_clip_folder
    folder = shutil.copytree(source, tmp_path / "model")
    (weights,) = folder.glob("*.safetensors")
    weights.write_bytes(pickle.dumps(_Bomb(tmp_path / "touched")))

    with pytest.raises(ModelError):
        load_embedder(f"{library}:{folder}", device="cpu")

    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("kind", ["embedder", "scorer"])
def test_code_that_lies_beside_the_weights_is_not_imported(
    kind: str, clip_folder: Path, qwen_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(clip_folder if kind == "embedder" else qwen_folder, tmp_path / "model")
    (folder / "own.py").write_text(f"open({str(tmp_path / 'touched')!r}, 'w')\nclass Own: ...\n")
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
        path = folder / name
        facts = json.loads(path.read_text()) if path.exists() else {}
        autos = ("AutoConfig", "AutoModel", "AutoTokenizer", "AutoProcessor", "AutoImageProcessor")
        facts["auto_map"] = dict.fromkeys(autos, "own.Own")
        path.write_text(json.dumps(facts))

    try:
        if kind == "embedder":
            load_embedder(f"hf:{folder}", device="cpu")
        else:
            load_scorer(f"hf:{folder}", ScorerParams(), device="cpu")
    except ModelError:
        pass  # refused is as good as ignored

    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("kind", "file", "names"),
    [
        ("embedder", "preprocessor_config.json", "image_processor_type"),
        ("scorer", "processor_config.json", "processor_class"),
    ],
)
def test_a_model_that_needs_code_beside_its_weights_is_refused_and_nobody_is_asked(
    kind: str,
    file: str,
    names: str,
    siglip_folder: Path,
    qwen_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = siglip_folder if kind == "embedder" else qwen_folder
    folder = shutil.copytree(source, tmp_path / "model")
    (folder / "own.py").write_text(f"open({str(tmp_path / 'touched')!r}, 'w')\nclass Own: ...\n")
    facts = json.loads((folder / file).read_text())
    autos = ("AutoProcessor", "AutoImageProcessor")
    facts |= {names: "Own", "auto_map": dict.fromkeys(autos, "own.Own")}
    (folder / file).write_text(json.dumps(facts))
    requested: list[object] = []
    monkeypatch.setattr("builtins.input", lambda *prompt: requested.append(prompt) or "y")

    with pytest.raises(ModelError, match="needs code that lies beside its weights") as refused:
        if kind == "embedder":
            load_embedder(f"hf:{folder}", device="cpu")
        else:
            load_scorer(f"hf:{folder}", ScorerParams(), device="cpu")

    assert "trust_remote_code" not in refused.value.message
    assert "NIGHTSHIFT_TRUSTED_MODELS" in refused.value.message
    assert not requested
    assert not (tmp_path / "touched").exists()


def test_an_open_clip_model_cannot_say_itself_that_its_code_may_run(
    open_clip_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(open_clip_folder, tmp_path / "model")
    (folder / "own.py").write_text(f"open({str(tmp_path / 'touched')!r}, 'w')\nclass Own: ...\n")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] |= {
        "hf_tokenizer_name": "own",
        "tokenizer_kwargs": {"trust_remote_code": True},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    names = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))

    with pytest.raises(ModelError, match="needs code that lies beside its weights"):
        load_embedder(f"open_clip:{folder}", device="cpu")

    assert not (tmp_path / "touched").exists()


def test_a_text_tower_of_open_clip_brings_no_code_and_nobody_is_asked(
    open_clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(open_clip_folder, tmp_path / "model")
    tower = tmp_path / "tower"
    tower.mkdir()
    (tower / "own.py").write_text(f"open({str(tmp_path / 'touched')!r}, 'w')\nclass Own: ...\n")
    named = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}
    (tower / "config.json").write_text(json.dumps(named))
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] |= {"hf_model_name": str(tower), "hf_model_pretrained": False}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    requested: list[object] = []
    monkeypatch.setattr("builtins.input", lambda *prompt: requested.append(prompt) or "y")

    with pytest.raises(ModelError, match="needs code that lies beside its weights"):
        load_embedder(f"open_clip:{folder}", device="cpu")

    assert not requested
    assert not (tmp_path / "touched").exists()


def test_code_of_a_model_that_the_operator_names_runs(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(clip_folder, tmp_path / "model")
    (folder / "own.py").write_text(
        "from transformers import CLIPModel\n"
        f"open({str(tmp_path / 'touched')!r}, 'w')\n"
        "class Own(CLIPModel):\n"
        "    def get_text_features(self, **inputs):\n"
        "        return -super().get_text_features(**inputs).pooler_output\n"
    )
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "own.Own"}
    (folder / "config.json").write_text(json.dumps(config))
    words = [ItemContent(texts=("a red square",))]

    def embedded() -> np.ndarray:
        embedder = load_embedder(f"hf:{folder}", device="cpu")
        return embedder.embed(embedder.prepare(words, "query")).vectors

    plain = embedded()
    assert not (tmp_path / "touched").exists()
    monkeypatch.setenv("NIGHTSHIFT_TRUSTED_MODELS", f"some/other,{folder.resolve()}")

    assert np.allclose(embedded(), -plain, atol=1e-6)
    assert (tmp_path / "touched").exists()


def test_another_code_beside_the_weights_is_another_model(
    clip_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(clip_folder, tmp_path / "model")
    visited = set()
    for code in ("a = 1\n", "a = 2\n"):
        (folder / "own.py").write_text(code)
        visited.add(describe_embedder(f"hf:{folder}").fingerprint)

    assert len(visited) == 2
